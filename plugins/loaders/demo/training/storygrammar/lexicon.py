# SPDX-License-Identifier: Apache-2.0
"""The words of the stories: names, animals, places, things, skills. Data only; plots give them meaning."""

from __future__ import annotations

from attrs import frozen


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


GIRLS = _words(
    "Lily Mia Anna Emma Rosa Ella Nora Lucy Zoe Ruby Clara Maya Sara Eva Ida Leah Nina Tara Jane Kate Amy "
    "Bella Daisy Grace Hannah Ivy Julia Kim Lena Molly Olive Penny Sophie Tina Violet Wendy Alice Betty Cora "
    "Dora Fern Gina Hazel Iris June Kira Luna Meg Nell Opal Pearl Rita Sue Tess Una Vera Willa Ada Beth"
)
BOYS = _words(
    "Tom Ben Max Sam Leo Jack Tim Noah Finn Oscar Hugo Adam Dan Eli Fred George Henry Ian Jake Kai Luke Mark "
    "Ned Owen Paul Ray Sid Ted Will Zack Alex Bob Carl Dave Ethan Frank Gus Harry Ivan Joe Ken Liam Matt Nick "
    "Otto Pete Ralph Simon Theo Victor Walt Amir Bruno Cole Dean Evan Felix Glen Hank Jim"
)
PETS = _words(
    "Pip Bubbles Coco Dot Fizz Ginger Honey Jojo Kiki Lulu Mimi Nibbles Pepper Poppy Rusty Sunny Tiny "
    "Whiskers Ziggy Biscuit Button Clover Dusty Fluffy Goldie Hop Jumper Maple Misty Nutty Peanut Pebble "
    "Pickle Pumpkin Scout Shadow Smudge Snowy Spot Sprout Toffee Twig Waddles Acorn Bean Cookie Muffin Olly "
    "Patch Rocky"
)
SYLLABLES = _words(
    "ba be bi bo da de di do fa fi ga go ka ki la le li lo lu ma me mi mo na ni no pa pi po ra ri ro sa ta to "
    "ze zo zu vi va wo we mu nu ru su tu shi cha tho bra gri plu sno fle tri kno qui yo ye ja ju he ha hi"
)
NAME_ENDINGS = ("", "", "", "n", "r", "l", "s", "x", "ra", "nk", "mo")

TRAITS = _words(
    "kind brave curious shy clever cheerful gentle playful quiet busy funny careful friendly happy patient "
    "polite helpful bright bold merry"
)
HOBBIES = (
    "sing in the morning",
    "look at the clouds",
    "draw with chalk",
    "run in the wind",
    "listen to stories",
    "count the stars at night",
    "climb on things",
    "ask questions",
    "help in the kitchen",
    "collect smooth stones",
    "jump in puddles",
    "tell jokes",
    "dance in the rain",
    "wear a blue hat",
    "talk to the birds",
    "sleep late",
    "eat breakfast outside",
    "build towers",
    "watch the boats",
    "smell the flowers",
)
COLORS = _words("red blue green yellow orange purple pink white")
WEATHER = _words("sunny warm bright windy cool clear lovely fine quiet golden")
DAYTIMES = _words("morning day afternoon")


@frozen
class Animal:
    """A kind of animal: how it looks, where it lives, what it likes to eat and what it does well."""

    kind: str
    looks: tuple[str, ...]
    home: str
    food: str
    gift: str  # climb, fly, swim, dig, small, tall, strong, fast, slow


def _animal(kind: str, looks: str, home: str, food: str, gift: str) -> Animal:
    return Animal(kind, tuple(looks.split()), home, food, gift)


ANIMALS = (
    _animal("mouse", "small gray brown tiny", "in a cozy hole under an old oak tree", "cheese", "small"),
    _animal("rabbit", "little white brown soft", "in a warm burrow near a green meadow", "carrots", "fast"),
    _animal("bear", "big brown fuzzy young", "in a cave on a green hill", "honey", "strong"),
    _animal("fox", "little red young", "in a den at the edge of the forest", "berries", "fast"),
    _animal("duck", "little yellow white young", "by a quiet pond", "bread", "swim"),
    _animal("owl", "wise old brown gray", "in a tall pine tree", "seeds", "fly"),
    _animal("bird", "little blue small yellow", "in a nest in an apple tree", "seeds", "fly"),
    _animal("frog", "little green small", "in a pond full of lilies", "flies", "swim"),
    _animal("squirrel", "little red gray quick", "high up in a big oak tree", "nuts", "climb"),
    _animal("monkey", "little brown young", "in the tall trees of the jungle", "bananas", "climb"),
    _animal("elephant", "big gray young", "beside a wide river", "melons", "strong"),
    _animal("giraffe", "tall young spotted", "on a wide yellow plain", "leaves", "tall"),
    _animal("ostrich", "tall young shy", "on a wide yellow plain", "seeds", "tall"),
    _animal("turtle", "small green old slow", "beside a blue lake", "lettuce", "slow"),
    _animal("cat", "little black orange soft", "in a house with a red door", "fish", "climb"),
    _animal("dog", "little brown fluffy white", "in a small yard behind a house", "bones", "dig"),
    _animal("hedgehog", "little round shy brown", "under a pile of leaves in the garden", "apples", "small"),
    _animal("pig", "little pink round", "on a small farm", "corn", "dig"),
    _animal("lamb", "little white soft", "on a green hill near a farm", "grass", "fast"),
    _animal("pony", "little brown white gray", "in a red barn", "apples", "strong"),
    _animal("mole", "small black shy", "in a tunnel under the meadow", "worms", "dig"),
    _animal("deer", "young brown gentle", "deep in the quiet forest", "leaves", "fast"),
    _animal("penguin", "little round young", "on a cold white shore", "fish", "swim"),
)
BY_GIFT = {gift: tuple(a for a in ANIMALS if a.gift == gift) for gift in {a.gift for a in ANIMALS}}
BY_KIND = {animal.kind: animal for animal in ANIMALS}

# (kind, pronouns it may have, looks, home, food)
FOLK = (
    ("dragon", "he she", "little green young", "in a cave high in the mountains", "some hot peppers"),
    ("robot", "he she", "small shiny old", "in a workshop at the end of the road", "a drop of oil"),
    ("princess", "she", "young little", "in a castle with seven towers", "a slice of cake"),
    ("prince", "he", "young little", "in a castle on a green hill", "a slice of cake"),
    ("fairy", "he she", "tiny little", "in a flower at the end of the garden", "a drop of honey"),
    ("wizard", "he", "young old", "in a crooked tower", "a bowl of soup"),
    ("witch", "she", "young friendly", "in a crooked house in the woods", "a bowl of soup"),
    ("baker", "he she", "young cheerful", "above a small bakery", "a fresh bun"),
    ("farmer", "he she", "old young", "on a farm by the river", "a piece of bread"),
    ("sailor", "he she", "young old", "in a small boat on the blue sea", "a piece of bread"),
    ("giant", "he she", "gentle young", "behind the highest hill", "a whole pie"),
    ("snowman", "he", "round little", "in a white field in the north", "a snow cone"),
)

CHILD_HOMES = (
    "in a small village",
    "in a little house by the sea",
    "in a tall house in a busy town",
    "on a quiet street",
    "on a small farm",
    "in a white house on a hill",
    "near a big forest",
    "next to a sunny park",
    "in a cozy cottage",
)


@frozen
class Place:
    """Somewhere a story happens: `to` and `at` are phrases ("to the park", "in the park"), `spots` are inside it."""

    name: str
    at: str
    spots: tuple[str, ...]
    found: tuple[str, ...]


def _place(name: str, preposition: str, spots: str, found: str) -> Place:
    return Place(name, f"{preposition} {name}", tuple(spots.split(", ")), tuple(found.split(", ")))


PLACES = (
    _place(
        "the park",
        "in",
        "under the bench, behind the slide, near the swings, by the fountain, behind the bushes",
        "an old coin, a wet leaf, a broken toy car, a pigeon eating crumbs",
    ),
    _place(
        "the forest",
        "in",
        "under a log, behind a big rock, by the stream, under the ferns, behind an old tree",
        "a pine cone, some mushrooms, a smooth stone, a busy line of ants",
    ),
    _place(
        "the garden",
        "in",
        "under the roses, behind the shed, next to the pond, under the apple tree, by the fence",
        "a fat worm, a flower pot, a sleepy snail, a rusty spoon",
    ),
    _place(
        "the beach",
        "on",
        "behind the rocks, under the umbrella, near the water, in the tall grass, by the boats",
        "a pink shell, a tiny crab, some seaweed, a piece of rope",
    ),
    _place(
        "the farm",
        "on",
        "in the barn, behind the hay, next to the well, under the cart, by the chicken house",
        "a white feather, a warm egg, an old boot, a sleeping cat",
    ),
    _place(
        "the meadow",
        "in",
        "under a bush, behind a hill, by the stream, in the tall grass, next to a big stone",
        "a ladybug, a yellow flower, a bird's feather, a green grasshopper",
    ),
    _place(
        "the yard",
        "in",
        "under the steps, behind the fence, next to the gate, under the big tree, by the wall",
        "a garden glove, a muddy stick, a blue button, a beetle",
    ),
)
BY_PLACE = {place.name.removeprefix("the "): place for place in PLACES}

TOYS = (
    "kite",
    "ball",
    "doll",
    "toy car",
    "toy boat",
    "drum",
    "bucket",
    "hat",
    "scarf",
    "book",
    "toy robot",
    "whistle",
    "puppet",
    "toy train",
    "teddy bear",
    "puzzle box",
    "paper plane",
    "music box",
    "wagon",
    "blanket",
)
FLYING = ("kite", "ball", "hat", "paper plane", "balloon", "scarf")
FOODS = ("apple", "cookie", "pear", "muffin", "sandwich", "orange", "cake", "pie", "bun", "peach")
MADE = (
    ("a crown of flowers", "flowers", "picked some flowers and wove them together"),
    ("a painted stone", "a smooth stone", "painted a bright sun on the stone"),
    ("a shell necklace", "small shells", "put the shells on a long string"),
    ("a paper star", "shiny paper", "folded the paper and cut out a big star"),
    ("a picture", "paper and paint", "painted the two of them under a rainbow"),
    ("a little wooden boat", "a piece of wood", "carved the wood and gave it a leaf for a sail"),
    ("a warm scarf", "soft wool", "knitted every evening until it was long enough"),
    ("a bird house", "some old boards", "nailed the boards together and painted them"),
    ("a berry pie", "sweet berries", "baked the berries in a pie"),
    ("a kite", "sticks and paper", "tied the sticks together and glued the paper on"),
)

# (to do it, doing it, what goes wrong first, what to try, what it looks like when it works)
SKILLS = (
    (
        "ride a bike",
        "riding a bike",
        "the bike wobbled and fell over",
        "look ahead and keep your feet moving",
        "rode all the way down the path",
    ),
    (
        "swim",
        "swimming",
        "water went up {h.his} nose",
        "kick slowly and hold on to me",
        "swam from one side to the other",
    ),
    (
        "whistle",
        "whistling",
        "only a puff of air came out",
        "make your mouth round and blow softly",
        "whistled a clear little tune",
    ),
    (
        "bake bread",
        "baking bread",
        "the bread came out flat and hard",
        "let the dough rest before you bake it",
        "took a tall, golden loaf out of the oven",
    ),
    (
        "paint",
        "painting",
        "the colors ran together into a brown mess",
        "wait for one color to dry",
        "painted a bright picture of the hills",
    ),
    (
        "dance",
        "dancing",
        "{h.he} tripped over {h.his} own feet",
        "listen to the music and count to three",
        "danced across the floor without one wrong step",
    ),
    (
        "sing",
        "singing",
        "{h.his} voice came out as a squeak",
        "take a deep breath and sing from your belly",
        "sang a song so sweet that even the birds listened",
    ),
    (
        "skip rope",
        "skipping rope",
        "the rope caught {h.his} feet",
        "jump when the rope touches the ground",
        "jumped twenty times in a row",
    ),
    (
        "catch a ball",
        "catching a ball",
        "the ball bounced off {h.his} nose",
        "watch the ball and open your hands",
        "caught the ball with both hands",
    ),
    ("read", "reading", "all the letters looked the same", "say the sounds one by one", "read a whole page out loud"),
    (
        "tie a knot",
        "tying a knot",
        "the string slipped apart",
        "make a loop and pull it tight",
        "tied a knot that nobody could open",
    ),
    (
        "play the drum",
        "playing the drum",
        "the beat went too fast and too slow",
        "tap your foot and follow it",
        "played a beat that made everyone clap",
    ),
    (
        "skate",
        "skating",
        "{h.he} slid and sat down hard on the ice",
        "bend your knees and take small steps",
        "skated in a big, smooth circle",
    ),
    (
        "grow flowers",
        "growing flowers",
        "the seeds dried up in the sun",
        "give them a little water every day",
        "saw three bright flowers open in the sun",
    ),
    (
        "tell stories",
        "telling stories",
        "{h.he} forgot how the story ended",
        "close your eyes and see it like a picture",
        "told a story so good that no one wanted to go to bed",
    ),
)

# (what is feared, what {h} hears or sees, what it really is, where)
FEARS = (
    ("the dark", "a shadow moved on the wall", "only a coat on a hook", "in {h.his} room"),
    ("thunder", "the thunder went boom and the windows shook", "only the clouds bumping together", "in {h.his} room"),
    ("the old well", "a deep voice came from the well", "only {h.his} own echo", "in the yard"),
    ("the attic", "something scratched on the floor above", "only a mother cat with three kittens", "in the house"),
    ("the cellar", "something went drip, drip, drip in the dark", "only a leaky pipe", "in the house"),
    (
        "the tall grass",
        "the grass shook and something puffed",
        "only a hedgehog looking for dinner",
        "behind the house",
    ),
    (
        "the big gray dog",
        "the dog barked and ran to the gate",
        "only a friendly dog who wanted to play",
        "down the road",
    ),
    ("the empty hut", "the door creaked and swung open", "only the wind playing with the door", "behind the house"),
)
