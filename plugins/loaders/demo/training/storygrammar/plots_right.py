# SPDX-License-Identifier: Apache-2.0
"""Plots about right and wrong: a broken thing, a broken rule, something found, a gift, a caged bird."""

from __future__ import annotations

from training.storygrammar import lexicon as words
from training.storygrammar.common import (
    bind_place,
    cast_elder,
    cast_friend,
    cast_hero,
    close_story,
    glad,
    one_day,
    open_story,
    thank,
)
from training.storygrammar.engine import Named, Tale

# what breaks, how, who gets blamed, how it is mended
BREAKAGES = (
    ("the blue vase", "hit it with a ball", "swept up the pieces and glued them together"),
    ("a big white plate", "ran into the table", "swept up the pieces and dried another plate"),
    ("the kitchen window", "kicked a ball too hard", "helped to put in a new pane of glass"),
    ("the flower pot", "jumped around the room", "put the flower into a new pot"),
    ("the old lamp", "played with a rope", "bent the lamp back into shape"),
    ("the honey jar", "climbed up on the shelf", "washed the sticky floor until it was clean"),
)


def broken_thing(t: Tale) -> None:
    """The hero breaks something, is tempted to hide it, tells the truth and is forgiven."""
    cast_hero(t, 0.8)
    cast_elder(t)
    broken, how, mended = t.pick(BREAKAGES)
    blamed = t.pick(("the cat", "the dog", "the wind"))
    t.bind(b=broken, how=how, mended=mended, blamed=blamed)
    open_story(t)
    one_day(
        t,
        "{h} was playing inside, even though {e} had told {h.him} not to.",
        "{h} was alone in the house and full of energy.",
        "{h} was bored and ran around the house.",
    )
    t.say("{h} {how}. Crash! {b} broke.", "Then {h} {how}, and crash! {b} was broken.", "{h} {how} and broke {b}.")
    t.say('"Oh no!" {h} whispered.', "{h.his} heart beat fast.", "{h} stood very still.")
    t.say(
        'When {e} came in, {e.he} asked, "What happened here?"',
        '"What was that noise?" asked {e}.',
        '{e} saw it and asked, "Who did this?"',
    )
    t.turn()
    t.say(
        '"It was {blamed}," said {h}. But {h.he} could not look at {e.him}.',
        '{h} looked at the floor. "I think it was {blamed}," {h.he} said.',
        "{h} wanted to say that it was {blamed}. The words felt heavy in {h.his} mouth.",
        'At first {h} said, "I do not know. Maybe it was {blamed}."',
    )
    t.say(
        "{h.his} tummy began to hurt. {h.he} knew that it was not right.",
        "But {h} felt worse and worse.",
        "{h} felt bad all [day|evening]. {h.he} could not even eat.",
    )
    t.say(
        '"{e.call}, it was me," {h} said at last. "I am sorry."',
        'At last {h} said, "It was not {blamed}. I did it, and I am sorry."',
        'Then {h} took a deep breath. "I broke it, {e.call}. I am very sorry," {h.he} said.',
    )
    t.turn()
    t.say(
        '{e} hugged {h.him}. "Thank you for telling the truth," {e.he} said.',
        '"I am glad you told me," said {e}. "That was brave."',
        '{e} was quiet for a moment. Then {e.he} smiled. "We all make mistakes," {e.he} said.',
    )
    t.say("Together they {mended}.", "{h} and {e} {mended}.", "Then they {mended}, side by side.")
    t.maybe(0.5, "{h} felt light again.", "{h.his} tummy did not hurt anymore.", "{h} could smile again.")
    close_story(
        t,
        ("the truth makes you feel better", "telling the truth is brave", "a lie is heavier than a mistake"),
        ("always told the truth", "never blamed {blamed} again", "was more careful in the house"),
    )


RULES = (
    (
        "not to touch the cake before dinner",
        "take a bite of the cake",
        "the whole cake fell on the floor",
        "They baked a new cake together",
    ),
    (
        "not to go past the gate alone",
        "go past the gate",
        "the path turned and turned until {h.he} was lost",
        "They walked home hand in hand",
    ),
    (
        "not to open the big brown box",
        "open the box",
        "a hundred little balls rolled out and bounced all over the house",
        "They picked up every ball together",
    ),
    (
        "not to play near the mud",
        "play in the mud",
        "{h.he} sank in up to {h.his} knees and lost a shoe",
        "They washed off all the mud together",
    ),
    (
        "not to feed cookies to the goat",
        "give the goat a cookie",
        "the goat wanted more and ate {h.his} hat",
        "They led the goat back to the barn together",
    ),
    (
        "not to turn the handle of the old machine",
        "turn the handle",
        "soap bubbles filled the whole room",
        "They opened all the windows and let the bubbles fly away",
    ),
)


def broken_rule(t: Tale) -> None:
    """The hero is told not to do something, does it, and is sorry for what happens."""
    cast_hero(t, 0.75)
    cast_elder(t)
    rule, deed, result, mended = t.pick(RULES)
    t.bind(rule=rule, deed=deed, result=result, mended=mended)
    open_story(t, trait=t.pick(("curious", "lively", "impatient", "clever", "bold")))
    one_day(
        t,
        "{e} told {h} {rule}.",
        '{e} had to go out for a while. "Please be good," {e.he} said, and told {h} {rule}.',
        "{e} went to see a neighbor. Before that, {e.he} told {h} {rule}.",
    )
    t.say(
        '"I will be good," said {h}.', '"Yes, {e.call}," said {h}.', "{h} nodded, but {h.he} was only half listening."
    )
    t.turn()
    t.say(
        "But as soon as {h} was alone, {h.he} wanted to {deed}.",
        'After a while, {h} thought, "Nobody will know if I {deed}."',
        "{h} waited and waited. It was so hard not to {deed}!",
    )
    t.say(
        "So {h.he} did it. And then {result}!",
        '"Just this once," {h} said, and did it. Suddenly {result}!',
        "{h} looked left and right, and then {h.he} did it. At once, {result}!",
    )
    t.say('"Oh no! What have I done?" cried {h}.', "{h} was scared.", '"Help!" cried {h}. "{e.call}!"')
    t.turn()
    t.say(
        '{e} heard the noise and came running. "What happened?" {e.he} asked.',
        "Soon {e} came back and saw it all.",
        "Luckily, {e} was not far away.",
    )
    t.say(
        '"I am sorry," said {h}. "I did not listen to you."',
        '{h} hung {h.his} head. "I should have listened," {h.he} said.',
        '"It was my fault, {e.call}," said {h}. "I am so sorry."',
    )
    t.say(
        '{e} was not happy, but {e.he} hugged {h.him}. "Now you know why I said it," {e.he} said.',
        '"I am glad that you are not hurt," said {e}.',
        '"Thank you for saying sorry," said {e}. "Will you listen next time?" {h} nodded.',
    )
    t.say("{mended}.")
    close_story(
        t,
        ("rules are there for a reason", "it is good to listen", "it is wise to do what you promised"),
        ("listened to {e}", "thought twice before breaking a rule", "kept {h.his} promises"),
    )


def found_thing(t: Tale) -> None:
    """The hero finds something precious, is tempted to keep it, and finds its owner."""
    cast_hero(t)
    cast_friend(t)
    bind_place(t)
    t.bind(o=t.pick(("gold ring", "silver key", "shiny watch", "purse full of coins", "silver bell", "gold button")))
    open_story(t)
    one_day(
        t,
        "{h} was walking {p.at} when {h.he} saw something shine {s1}.",
        "{h} went to {p}. {s1}, something was shining.",
        "{h} was playing {p.at} and tripped over something {s1}.",
    )
    t.say("It was {a o}!", "{h.he} bent down. It was {a o}!", '"Wow, {a o}!" said {h}.')
    t.say(
        '"I want to keep it," {h} thought. ["It is so pretty."|]',
        "{h} put it in {h.his} pocket and [smiled|felt rich].",
        '"Now it is mine," said {h} [happily|softly].',
    )
    t.turn()
    t.say(
        "On the way home, {h.he} saw a {f.noun}. It was {f}, and {f.he} was crying.",
        "Then {h} heard someone cry. {f}, a {f.noun}, was sitting {s2}.",
        "Soon {h.he} met {f}, a {f.noun}, who was looking [for something {s2}|at the ground and sighing].",
    )
    t.say('"What is the matter?" asked {h}.', '"Did you lose something?" {h} asked.', '"Why are you sad?" asked {h}.')
    t.say(
        '"I lost my {o}," said {f}. "It was a gift from my grandma."',
        '"My {o} is gone," {f} said. "I have looked everywhere."',
        '{f} wiped {f.his} eyes. "I lost my {o}," {f.he} said. "I will be in trouble."',
    )
    t.say(
        "{h} touched the {o} in {h.his} pocket. {h.he} wanted it so much! But it was not right to keep it.",
        "{h} was quiet. It was hard to give up the {o}. But {f} looked so sad.",
        "{h} thought about it. Keeping the {o} did not feel good now.",
    )
    t.turn()
    t.say(
        '"Is this it?" {h} asked, and held out the {o}.',
        '"I found it {s1}," said {h}. "Here it is."',
        '{h} gave the {o} to {f}. "It is yours," {h.he} said.',
    )
    glad(t, "f")
    thank(t, "h", "f")
    t.maybe(
        0.6,
        "To say thanks, {f} gave {h} a small bag of sweets.",
        "{f} invited {h} to tea, and they talked until dark.",
        "{h} felt better than any {o} could make {h.him} feel.",
    )
    close_story(
        t,
        (
            "it feels good to do what is right",
            "a happy friend is worth more than a treasure",
            "being fair is better than being rich",
        ),
        ("always gave back what {h.he} found", "and {f} were friends"),
    )


def made_gift(t: Tale) -> None:
    """A birthday, no money, and a gift made by hand that is the best of all."""
    cast_hero(t)
    cast_friend(t)
    bind_place(t)
    gift, stuff, work = t.pick(words.MADE)
    t.bind(gift=gift, it=Named(gift.removeprefix("a "), {}), stuff=stuff, work=work)
    open_story(t, "{h.his} best friend was {a f.noun} named {f}.")
    one_day(
        t,
        "{h} heard that it was {f}'s birthday [soon|the next day].",
        '{f} said, "Tomorrow is my birthday! Will you come?"',
        "{h} remembered that {f} had a birthday coming.",
    )
    t.say(
        "{h} wanted to give {f.him} something [nice|special]. But {h.he} had no money.",
        '"What can I give {f}?" {h} wondered. {h.he} had only one small coin.',
        "{h} looked in {h.his} money box. It was empty. {h.he} could not buy a present.",
    )
    t.turn()
    t.say(
        "{h} walked to {p} to think. There {h.he} found {stuff}.",
        "{p.at}, {h} found {stuff}, and {h.he} had an idea.",
        'Then {h} had an idea. "I will make something!" {h.he} said, and went to look for {stuff}.',
    )
    t.say(
        "{h.he} {work}. [It took a long time.|]",
        "All [day|evening] long, {h} worked. {h.he} {work}.",
        "With care, {h.he} {work}.",
    )
    t.say(
        "At last {h} had {gift}.",
        "Soon {gift} was ready.",
        '"It is done," said {h}. {h.he} had made {gift}. "I hope {f} likes it."',
    )
    t.maybe(0.5, "But {h} was worried. What if {f} did not like it?", "It was not perfect, but it was made with love.")
    t.turn()
    t.say(
        "At the party, there were many big presents. {h} gave {f} {h.his} small one last.",
        "The next day, {h} gave {f} the present.",
        '"Happy birthday, {f}!" said {h}, and held out the gift.',
    )
    t.say(
        '{f} opened it. "Oh, {gift}! Did you make this for me?" {f.he} asked.',
        "{f} looked at the {it} for a long time. Then {f.he} smiled.",
        '"This is the best present of all," said {f}.',
    )
    glad(t, "f")
    close_story(
        t,
        (
            "the best gifts come from the heart",
            "a gift does not have to cost money",
            "a small gift can make a big smile",
        ),
        ("made all {h.his} presents by hand", "and {f} were closer than ever"),
    )


def caged_bird(t: Tale) -> None:
    """The hero catches something wild because it is beautiful, sees that it is sad, and lets it go."""
    cast_hero(t, 0.85)
    bind_place(t)
    kind, song, cage = t.pick(
        (
            ("bird", "sang the sweetest song", "a cage"),
            ("butterfly", "danced in the air", "a glass jar"),
            ("firefly", "glowed like a little star", "a glass jar"),
            ("lizard", "shone like green glass", "a small box"),
            ("frog", "jumped higher than a chair", "a box with holes"),
            ("cricket", "played music all night", "a tiny box"),
        )
    )
    look = t.pick(("blue", "golden", "little green", "bright red", "tiny"))
    t.bind(kind=kind, c=f"{look} {kind}", song=song, cage=cage, room=cage.split(" ", 1)[1])
    open_story(t)
    one_day(
        t,
        "{h} saw {a c} {p.at}. It {song}.",
        "{s1}, {h} found {a c} that {song}.",
        "{a c} came by. It {song}, and {h} could not look away.",
    )
    t.say(
        '"I want to keep you," said {h}. {h.he} caught the {kind} and put it in {cage}.',
        "{h} wanted it for {h.himself}, so {h.he} put it in {cage}.",
        '"You are mine now," {h} said, and put it in {cage}.',
    )
    t.turn()
    t.say(
        "But the next day, the {kind} was quiet. It did not move.",
        "In the {room}, the {kind} sat very still.",
        "From that moment, the {kind} was sad and dull.",
    )
    t.say(
        '"What is wrong?" asked {h}. {h.he} gave it food, but it did not eat.',
        "{h} gave it leaves and water. It did not even look at them.",
        '"Please be happy," said {h}. But nothing helped.',
    )
    t.say(
        '"I miss the wind and my friends," said the {kind} softly.',
        '{h} thought, "How would I feel in {cage}?"',
        "That night, {h} dreamed that {h.he} was the one in the {room}.",
    )
    _end_caged_bird(t)


def _end_caged_bird(t: Tale) -> None:
    """The last part of `caged_bird`."""
    t.turn()
    t.say(
        "{h} felt sorry. {h.he} carried the {room} to {p} and opened it.",
        '"I was wrong," said {h}. "You should be free." ^{h.he} opened the {room}.',
        "The next morning, {h} went to {p} and let the {kind} go.",
    )
    t.say(
        "The {kind} was free! It turned around once, as if to say thank you.",
        "For a moment, the {kind} did not move. Then it was gone, quick as a wink.",
        '"Goodbye, little friend," {h} said. The {kind} was happy again.',
    )
    t.say(
        "And every evening, the {kind} came back, and it {song} just for {h}.",
        "A week later, {h} heard a sound at the window. It was the {kind}, and it {song}.",
        "{h} was a little sad, but {h.he} knew that it was right.",
    )
    close_story(
        t,
        ("love means to let someone be free", "wild things need to be free", "you cannot keep a friend in a box"),
        ("watched animals only from afar", "never caught a wild thing again"),
    )


PLOTS = (broken_thing, broken_rule, found_thing, made_gift, caged_bird)
