# SPDX-License-Identifier: Apache-2.0
"""Plots about wishes: a chain of trades, the moon, a magic stone."""

from __future__ import annotations

from training.storygrammar.common import (
    bind_place,
    cast_friend,
    cast_hero,
    close_story,
    definite,
    glad,
    one_day,
    open_story,
    sad,
    thank,
)
from training.storygrammar.engine import Tale

GOODS = (
    "a red apple",
    "a warm hat",
    "a wooden spoon",
    "a jar of jam",
    "a ball of wool",
    "a clay pot",
    "a small lamp",
    "a bag of flour",
    "a basket",
    "a sharp pencil",
    "a pair of socks",
    "a bunch of flowers",
)


NEEDERS = (
    "an old woman",
    "a baker",
    "a tired farmer",
    "a shepherd",
    "a painter",
    "a mailman",
    "a young nurse",
    "a teacher",
    "a gardener",
    "a fisherman",
)


def trades(t: Tale) -> None:
    """The hero trades one thing for another, each time helping someone, and comes home with the wished-for thing."""
    cast_hero(t, 0.8)
    t.bind(wish=t.pick(("a little puppy", "a drum", "a pair of skates", "a paint box", "a kite", "a flute")))
    goods = t.rng.sample(GOODS, 3)
    people = t.rng.sample(NEEDERS, 3)
    t.bind(g1=goods[0], g2=goods[1], g3=goods[2], n1=people[0], n2=people[1], n3=people[2])
    t.bind(**{f"m{i}": definite(person) for i, person in enumerate(people, 1)})
    t.bind(**{f"d{i}": definite(good) for i, good in enumerate(goods, 1)}, dw=definite(t.bound["wish"].text))
    open_story(t, t.pick(("{h.he} wanted to have {wish}, but {h.he} had no money.", "{h} dreamed of {wish}.")))
    one_day(
        t,
        "{h} went to the market. All {h.he} had was {g1}.",
        "{h} put {g1} in a bag and walked to town.",
        "{h} took {g1} and went down the road.",
    )
    t.turn()
    t.say(
        'On the way, {h} met {n1}. "I need {g1} so much!" said {m1}. "I can give you {g2} for it."',
        '{n1} stopped {h.him}. "Is that {g1}? Please, take {g2} for it," said {m1}.',
        'First {h.he} saw {n1}, who looked sad. "If only I had {g1}," said {m1}.',
    )
    t.say(
        "{h} gave away {d1} and got {g2}.",
        '"Here you are," said {h}, and {h.he} got {g2} in return.',
        "So {h} traded {d1} for {g2}.",
    )
    t.say(
        'A little later, there was {n2}. "I have looked for {g2} all day!" said {m2}.',
        "Then {h} came to {n2}, who needed {g2}.",
        'Soon {h.he} met {n2}. "What a fine thing you have there," said {m2}.',
    )
    t.say(
        "{h} was happy to help and got {g3} for it.",
        '"Take it," said {h}. So {h.he} got {g3}.',
        "They traded, and now {h} had {g3}.",
    )
    _end_trades(t)


def _end_trades(t: Tale) -> None:
    """The last part of `trades`."""
    t.turn()
    t.say(
        'At the end of the road stood {n3}. "My old mother wishes for {g3}," said {m3}.'
        ' "But I have no money. I have only {wish}."',
        'When it was almost dark, {h} met {n3}. "Will you give me {d3} for {wish}?" asked {m3}.',
        '{n3} looked at {d3}. "I would give you {wish} for that," said {m3}.',
    )
    t.say(
        "{h} could not believe it!",
        '"For {wish}? Yes, please!" cried {h}.',
        "{h.his} heart jumped. It was just what {h.he} had wished for.",
    )
    t.say(
        "{h} ran home with {dw} and told everyone.",
        "That evening, {h} came home with {dw} and a big smile.",
        "{h} carried {dw} home as if it were made of gold.",
    )
    close_story(
        t,
        (
            "helping others can help you too",
            "small steps can lead to big things",
            "what is little to one is a lot to another",
        ),
        ("liked to help people on the road", "took good care of what {h.he} had"),
    )


def reach_the_moon(t: Tale) -> None:
    """The hero wants the moon (or a star, a cloud), tries to reach it, and finds it somewhere near."""
    cast_hero(t)
    cast_friend(t, gift=t.pick(("fly", "tall", "small", "")))
    thing, place = t.pick(
        (
            ("the moon", "in the still water of the pond"),
            ("a star", "in the small light of a firefly"),
            ("the moon", "in a bowl of water on the window"),
            ("a rainbow", "in the spray of the garden hose"),
            ("a cloud", "in the white mist on the morning meadow"),
        )
    )
    t.bind(thing=thing, place=place, it=definite(thing))
    open_story(t, t.pick(("{h} wanted to touch {thing}.", "{h.he} had one dream: to hold {thing} in {h.his} hands.")))
    one_day(
        t,
        "{h} climbed the highest hill. But {it} was still far away.",
        "{h} stood on a chair on a table and reached up. It was not high enough.",
        "{h} made a long ladder. {h.he} climbed to the top, but {h.he} could not reach {it}.",
    )
    t.say(
        "Then {h.he} jumped as high as {h.he} could, and fell into a bush.",
        "Then {h.he} threw a rope into the air. It came right back down.",
        "Then {h.he} asked the wind for help, but the wind only laughed.",
    )
    sad(t)
    t.turn()
    t.say(
        '{f}, {a f.noun}, had watched it all. "What are you doing?" {f.he} asked.',
        'A {f.noun} named {f} came by. "Why do you look up all the time?" asked {f}.',
        '"What do you want up there?" asked {h.his} friend {f}, {a f.noun}.',
    )
    t.say(
        '"I want to touch {thing}," said {h}, "but it is too far away."',
        '"I want to hold {thing}, just once," {h} said.',
        '{h} sighed. "I will never reach {it}," {h.he} said.',
    )
    t.say(
        '{f} thought for a while. "Come with me," {f.he} said. "I know a way."',
        '"Sometimes you do not have to go up," said {f}. "Sometimes you have to look down."',
        'Then {f} smiled. "Close your eyes and take my hand," {f.he} said.',
    )
    _end_reach_the_moon(t)


def _end_reach_the_moon(t: Tale) -> None:
    """The last part of `reach_the_moon`."""
    t.turn()
    t.say(
        "{f} showed {h} a place. There was {it}, {place}!",
        "They walked a short way. Then {f} pointed. {it} was right there, {place}.",
        '"Look," said {f}. And {h} saw {thing} {place}.',
    )
    t.say(
        "{h} put out a hand and touched it very gently.",
        '"It is so beautiful!" {h} whispered.',
        "{h} held {h.his} breath. It was as close as could be.",
    )
    glad(t)
    thank(t)
    close_story(
        t,
        (
            "what you look for may be very near",
            "there is more than one way to reach a dream",
            "a friend can show you new ways",
        ),
        ("and {f} came back to that place often", "looked at the world with new eyes"),
    )


# (what it is, how it is found)
MAGIC = (
    ("magic stone", "a stone that glowed like the moon"),
    ("magic lamp", "an old lamp covered with dust"),
    ("magic feather", "a feather that shone in all colors"),
    ("magic shell", "a shell that hummed a tune"),
    ("magic coin", "a coin that was warm like a hand"),
)


# (wish, what goes right, what goes wrong)
WISHES = (
    (
        "to be as tall as a tree",
        "{h} grew and grew until {h.he} could touch the clouds",
        "{h.he} was too big for {h.his} own bed, and all {h.his} friends ran away",
    ),
    (
        "for a mountain of candy",
        "candy fell from the sky until it was as high as a house",
        "{h.he} ate so much that {h.his} tummy hurt, and {h.he} could not get to the door",
    ),
    (
        "that it would never be night",
        "the sun stayed high up in the sky",
        "nobody could sleep, and even the flowers looked tired",
    ),
    (
        "to be invisible",
        "{h} looked down and could not see {h.his} own feet",
        "nobody could see {h.him}, and nobody said hello or played with {h.him}",
    ),
    (
        "that everything {h.he} touched would turn to gold",
        "the chair turned to gold, and then the table",
        "{h.his} bread turned to gold too, and {h.he} could not eat it",
    ),
    (
        "to have no one tell {h.him} what to do",
        "everyone went away, and the house was quiet",
        "there was no one to cook, to read a story, or to say good night",
    ),
)


def magic_wish(t: Tale) -> None:
    """A wish comes true, turns out badly, and is wished away again."""
    cast_hero(t, 0.7)
    bind_place(t)
    magic, looks = t.pick(MAGIC)
    wish, right, wrong = t.pick(WISHES)
    t.bind(m=magic, looks=looks, wish=wish, right=right, wrong=wrong, bare=magic.split()[1])
    open_story(t)
    one_day(
        t,
        "{h} found {looks} {s1}.",
        "{h} was playing {p.at}. There, {s1}, {h.he} saw {looks}.",
        "{h} walked to {p} and found {looks}.",
    )
    t.say(
        '"I am a {m}," said a tiny voice. "You have [one wish|a wish]."',
        'When {h} picked it up, a voice said, "Make a wish!"',
        "It was a {m}! {h} knew about such things from stories. {h.he} could make a wish.",
    )
    t.say(
        "{h} wished {wish}.",
        "{h} did not think for long. {h.he} wished {wish}.",
        "So {h} closed {h.his} eyes and wished {wish}.",
    )
    t.turn()
    t.say("At once, {right}.", "Puff! {right}.", "The {bare} grew warm, and then {right}.")
    t.say('"This is great!" said {h}.', "At first, it was a lot of fun.", "{h} laughed with joy.")
    t.say("But soon {wrong}.", "But then {wrong}.", "It was not fun for long. {wrong}.")
    sad(t)
    t.turn()
    t.say(
        '"I do not want this anymore," {h} said to the {bare}. "Please make it like before."',
        '{h} took the {m} again. "Please take my wish back," {h.he} said.',
        '"This was a bad wish," said {h}. {h.he} held the {bare} tight and wished for everything to be as it was.',
    )
    t.say(
        "The {bare} blinked once, and all was as before.",
        "There was a soft sound, and the wish was gone.",
        '"Now you know," said the {bare}, and everything was like before.',
    )
    t.say(
        "{h} ran home and hugged everyone.",
        "{h} put the {bare} back {s1} and went home.",
        "{h} was so glad that {h.he} danced all the way home.",
    )
    close_story(
        t,
        ("you should think before you wish", "the things you have are good", "more is not always better"),
        ("was happy with what {h.he} had", "thought well before making a wish"),
    )


PLOTS = (trades, reach_the_moon, magic_wish)
