# SPDX-License-Identifier: Apache-2.0
"""Plots about growing: learning a skill, facing a fear, a race, a garden."""

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
    sad,
    thank,
)
from training.storygrammar.engine import Tale


def learn_skill(t: Tale) -> None:
    """The hero wants to do something, fails, gets advice, practices and succeeds."""
    cast_hero(t)
    elder = t.chance(0.5)
    if elder:
        cast_elder(t)
        t.bind(g=t.bound["e"])
    else:
        cast_friend(t, "g")
    skill, doing, wrong, advice, done = t.pick(words.SKILLS)
    t.bind(skill=skill, doing=doing, wrong=wrong, advice=advice, done=done)
    open_story(
        t,
        t.pick(
            (
                "More than anything, {h.he} wanted to {skill}.",
                "{h} had one big wish: {h.he} wanted to {skill}.",
                "{h.he} wished that {h.he} could {skill}.",
            )
        ),
    )
    one_day(
        t,
        "{h} tried to {skill}. But {wrong}.",
        '{h} said, "Today I will learn to {skill}!" ^{h.he} tried, but {wrong}.',
        "{h} made up {h.his} mind to try. It did not go well: {wrong}.",
    )
    t.say(
        "{h} tried again. Again, {wrong}.",
        "{h.he} tried two more times, but it was no better.",
        '"I will never [learn|do it]!" said {h}.',
        "The others laughed, and {h} felt [silly|hot in the face].",
    )
    sad(t)
    t.turn()
    if elder:
        t.say(
            '{g} saw it and sat down next to {h.him}. "What is wrong?" {g.he} asked.',
            '"Why do you look so sad?" asked {g}.',
            'Then {g} came. "Tell me about it," {g.he} said.',
        )
    else:
        t.say(
            'A {g.noun} named {g} saw it. "Why are you sad?" {g.he} asked.',
            '{h.his} friend {g} came by. "What is wrong?" asked {g}.',
            '{g}, a {g.noun}, sat down next to {h.him}. "Do not give up," {g.he} said.',
        )
    t.say(
        '"I cannot {skill}," said {h}.',
        '"I want to {skill}, but I am not good at it," {h} said.',
        '"{doing} is too hard for me," said {h}.',
    )
    t.say(
        '"I was bad at it too, once," said {g}. "Just {advice}."',
        '"You only need to {advice}," said {g}. "Try it!"',
        '{g} smiled. "Here is a secret," {g.he} said. "You must {advice}."',
    )
    _end_learn_skill(t)


def _end_learn_skill(t: Tale) -> None:
    """The last part of `learn_skill`."""
    t.turn()
    t.say(
        "{h} tried it that way. It was a little better.",
        "So {h} practiced every day. Each day it got a bit easier.",
        "{h} listened and tried again and again. {h.he} did not give up.",
        "Day after day, {h} practiced with {g}.",
    )
    t.say(
        "And then it happened: {h} {done}!",
        "One week later, {h} {done}.",
        "At last, {h} {done}. Everyone cheered!",
    )
    t.maybe(0.6, '"I did it!" [shouted|cried] {h}.', '"You did it!" said {g}.', '"Look at me!" {h} called.')
    glad(t)
    if t.chance(0.4):
        thank(t, "g")
    close_story(
        t,
        (
            "you get better when you practice",
            "hard things get easier if you do not give up",
            "it is fine to be bad at something at first",
        ),
        ("loved {doing}", "practiced every day", "helped others who wanted to {skill}"),
    )


def face_fear(t: Tale) -> None:
    """The hero is afraid of something, goes to look, and finds that it is harmless."""
    cast_hero(t, 0.8)
    cast_elder(t)
    fear, sign, truth, where = t.pick(words.FEARS)
    t.bind(fear=fear, sign=sign, truth=truth, where=where)
    open_story(t, t.pick(("{h} was afraid of {fear}.", "But there was one thing {h.he} feared: {fear}.")))
    t.say(
        "One night, {h} was alone {where}. Suddenly, {sign}.",
        "One evening, {h} was {where} when {sign}.",
        "It was late, and {h} was {where}. Then {sign}.",
    )
    t.say(
        '"Help!" cried {h}, and {h.he} ran to {e}.',
        "{h} [was so scared that {h.he} could not move|shook like a leaf]. Then {h.he} called for {e}.",
        "{h.his} heart went thump, thump, thump. {h.he} ran to find {e}.",
    )
    t.say('"What is it?" asked {e}.', '"You look pale. What happened?" {e} asked.', "{e} held {h.him} close.")
    t.say(
        '"There is a monster!" said {h}.',
        '"I think there is something bad in there," {h} whispered.',
        '"I am scared of {fear}," said {h}.',
    )
    t.turn()
    t.say(
        '"Let us take a light and look together," said {e}.',
        '"Being brave means that you are scared and you look anyway," said {e}. "I will hold your hand."',
        '"Shall we see what it is?" asked {e}. {h} nodded slowly.',
    )
    t.say(
        "Step by step, they went back. {h} held up the light.",
        "{h} took a deep breath. Hand in hand, they went to look.",
        "{h} wanted to hide, but {h.he} went along with {e}.",
    )
    t.say(
        "And what did they see? It was {truth}!",
        "It was {truth}.",
        '"Look!" said {e}. It was {truth}.',
    )
    t.turn()
    t.say(
        "{h} began to laugh. {e} laughed too.",
        '"Is that all?" said {h}. {h.he} had to laugh.',
        "{h} let go of {e.his} hand. {h.he} was not afraid anymore.",
    )
    t.maybe(0.5, '"I was brave!" said {h}.', '"You were very brave," said {e}.', "{h} slept well that night.")
    close_story(
        t,
        (
            "things are less scary when you look at them",
            "being brave means to try even when you are afraid",
            "most monsters are very small in the light",
        ),
        ("was not afraid of {fear}", "took a light and looked when {h.he} was scared"),
    )


def race(t: Tale) -> None:
    """A fast and proud rival loses to someone who keeps going; or the hero stops to help and wins a friend."""
    cast_hero(t, 0.4)
    cast_friend(t)
    bind_place(t, "forest", "meadow", "beach", "park", "farm")
    kind_end = t.chance(0.5)
    t.bind(goal=t.pick(("the old oak tree", "the wooden bridge", "the tall white rock", "the red gate")))
    open_story(t, trait=t.pick(("patient", "slow", "careful", "quiet", "calm")))
    t.say(
        "{h} had a neighbor, {a f.noun} named {f}, who was very fast[ and very proud|].",
        '{a f.noun} named {f} lived nearby. {f.he} liked to say, "I am the fastest of all!"',
        "Nearby lived {f}, {a f.noun}. Nobody ran faster than {f}.",
    )
    one_day(
        t,
        'there was a race {p.at}. "You will never win," {f} said to {h}.',
        '{f} laughed at {h}. "You are so slow!" {f.he} said. "Let us race," said {h}.',
        "everyone came to {p} for the big race. {h} and {f} stood side by side.",
    )
    t.say("They had to run to {goal}.", "The race went all the way to {goal}.", "The first one at {goal} would win.")
    t.turn()
    t.say(
        '"One, two, three, go!" {f} ran off like the wind. {h} was far behind.',
        "The race began. {f} was soon far ahead, but {h} kept going.",
        "{f} ran so fast that {h} could see only dust.",
    )
    if kind_end:
        _stop_to_help(t)
    else:
        _overtake(t)


def _stop_to_help(t: Tale) -> None:
    """The race ends with a fall, and the hero forgets about winning."""
    t.say(
        'Suddenly {f} tripped over a root and fell. "Ouch! My leg!" {f.he} cried.',
        "But then {f} slipped on wet leaves and hurt {f.his} leg.",
        "Near the end, {f} fell into a muddy hole and could not get out.",
    )
    t.say(
        '{h} could win now! But {h.he} stopped. "Are you hurt?" {h.he} asked.',
        "{h} saw it. {h.he} forgot about the race and ran to help.",
        "{h} looked at {goal}, and then at {f}. {h.he} stopped to help.",
    )
    t.turn()
    t.say(
        "{f} put an arm around {h}, and they walked to {goal} together.",
        "{h} helped {f} up. Slowly, side by side, they came to {goal}.",
    )
    t.say(
        '"Why did you help me? You could have won," said {f}. "A friend is better than a prize," said {h}.',
        '"I am sorry that I was so proud," said {f}. "Will you be my friend?" {h} smiled and said yes.',
        "Everyone clapped, louder than for any winner.",
    )
    close_story(
        t,
        ("helping is better than winning", "a kind heart is worth more than a prize"),
        ("and {f} ran side by side", "and {f} were good friends"),
    )


def _overtake(t: Tale) -> None:
    """The race ends as in the old fable: the rival rests, the hero does not."""
    t.say(
        '"I have a lot of time," {f} thought, and lay down {s1}. Soon {f.he} was asleep.',
        "{f} saw that nobody was near. So {f.he} stopped {s1} to eat a snack, and then another.",
        "{f} stopped to talk to everyone about how fast {f.he} was.",
    )
    t.say(
        "But {h} went on, step by step. {h.he} did not stop once.",
        '{h} was tired, but {h.he} told {h.himself}, "One more step. And one more."',
        "{h} went past {f} without a sound.",
    )
    t.turn()
    t.say(
        "When {f} looked up, {h} was already at {goal}. {h} had won!",
        "{f} ran as fast as {f.he} could, but it was too late. {h} touched {goal} first.",
    )
    t.say(
        "Everyone cheered for {h}. {f} was very quiet.",
        '"You did well," {f} said. "I was too proud." {h} shook {f.his} hand.',
        "{f} could not believe it. {h} just smiled.",
    )
    close_story(
        t,
        ("slow and steady can win", "you can do a lot if you do not stop", "it is not good to be too proud"),
        ("was proud of going slow and steady", "and {f} ran together for fun"),
    )


def garden(t: Tale) -> None:
    """A seed, impatience, care, and a harvest big enough to share."""
    cast_hero(t)
    cast_elder(t)
    plant, crop = t.pick(
        (
            ("bean", "long green beans"),
            ("pumpkin", "a huge orange pumpkin"),
            ("sunflower", "a flower as tall as a house"),
            ("tomato", "round red tomatoes"),
            ("strawberry", "sweet red strawberries"),
            ("carrot", "crisp orange carrots"),
            ("melon", "a melon as big as a drum"),
            ("pea", "fat green peas"),
        )
    )
    t.bind(
        plant=plant, crop=crop, spot=t.pick(("by the fence", "behind the house", "in a sunny corner", "in a big pot"))
    )
    open_story(t)
    one_day(
        t,
        "{e} gave {h} a {plant} seed.",
        "{h} found a tiny {plant} seed on the ground and showed it to {e}.",
        '{e} said, "Hold out your hand," and put a small {plant} seed in it.',
    )
    t.say(
        '"What should I do with it?" asked {h}. "Plant it, and be patient," said {e}.',
        '"It is so small," said {h}. "Small things can grow big," said {e}.',
        '"Plant it {spot}," said {e}, "and give it water every day."',
    )
    t.say(
        "{h} dug a hole {spot} and put the seed in it.",
        "So {h} planted the seed {spot} and gave it some water.",
    )
    t.turn()
    t.say(
        "The next day, {h} ran out to look. Nothing was there.",
        "{h} looked the next morning. There was only brown earth.",
        "Every morning, {h} looked. For a long time, there was nothing to see.",
    )
    t.say(
        '"It does not work!" said {h}. {h.he} wanted to dig up the seed.',
        '"When will it grow?" asked {h}. {h.he} was tired of waiting.',
        '{h} kicked the ground. "This seed is no good," {h.he} said.',
    )
    t.say(
        '"Wait," said {e}. "It is growing where you cannot see it."',
        '"Good things need time," said {e}.',
        '"Seeds wake up slowly, just like you," {e} said and laughed.',
    )
    t.say(
        "So {h} waited. {h.he} gave it water and sang to it.",
        "{h} went on. {h.he} pulled out the weeds and gave the seed a drink every day.",
        "Rain came, and sun came, and {h} took good care of the spot.",
    )
    _end_garden(t)


def _end_garden(t: Tale) -> None:
    """The last part of `garden`."""
    t.turn()
    t.say(
        'Then, one morning, there was a tiny green leaf! "{e.call}, come and look!" called {h}.',
        "After two weeks, a little green tip came out of the ground. {h} danced around it.",
        "And then a small green plant pushed up to the light.",
    )
    t.say(
        "All summer it grew and grew, until {h} had {crop}.",
        "It grew taller each week. At the end of summer, it gave {h} {crop}.",
        "When summer was over, {h} was the proud owner of {crop}.",
    )
    t.say(
        "There was enough for all the neighbors.",
        "{h} shared with everyone on the street.",
        "{h} and {e} had a feast, and all their friends came.",
    )
    close_story(
        t,
        ("good things take time", "it pays to be patient", "small seeds can grow into big things"),
        ("planted seeds every spring", "knew how to wait", "took care of the garden with {e}"),
    )


PLOTS = (learn_skill, face_fear, race, garden)
