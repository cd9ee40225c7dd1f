# SPDX-License-Identifier: Apache-2.0
"""Plots about two who belong together: a rainy day, a new neighbor, a sick friend, a quarrel, sharing."""

from __future__ import annotations

from training.storygrammar.common import (
    bind_place,
    bind_toy,
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

PLANS = (
    ("have a picnic", "made a tent out of blankets and ate their sandwiches on the floor"),
    ("fly a kite", "folded paper planes and flew them from the stairs"),
    ("swim in the lake", "filled the bathtub and sailed little boats of bark"),
    ("play ball", "rolled up some socks and threw them into a hat"),
    ("have a parade", "marched through the house with pots and spoons for drums"),
    ("put on a play outside", "hung up a sheet and made shadow animals with a lamp"),
)


def rainy_day(t: Tale) -> None:
    """Rain ruins a plan, and a new idea makes the day even better."""
    cast_hero(t)
    cast_friend(t)
    plan, instead = t.pick(PLANS)
    t.bind(plan=plan, instead=instead)
    open_story(t, "{h.his} best friend was {a f.noun} named {f}.")
    one_day(
        t,
        "{h} and {f} wanted to {plan}.",
        "{h} woke up early. Today {h.he} and {f} were going to {plan}!",
        '"Let us {plan} today!" said {h} to {f}.',
    )
    t.say(
        "They had waited for this day all week.",
        '"I cannot wait!" said {f}.',
        "They packed everything they needed.",
        "{f} was so excited that {f.he} hopped from one foot to the other.",
    )
    t.turn()
    t.say(
        "But then the sky turned gray. Drip, drop, drip. It began to rain.",
        "Just as they opened the door, big drops of rain began to fall.",
        "Suddenly there was a loud boom, and rain came down like a river.",
    )
    t.say(
        '"Now we cannot {plan}," said {f}, and {f.his} eyes filled with tears.',
        '"Oh no," said {h}. "Our day is ruined!"',
        "They looked out of the window. The rain did not stop.",
    )
    sad(t, t.pick(("h", "f")))
    t.say(
        'Then {h} had an idea. "We can have fun inside!" {h.he} said.',
        '"Wait!" said {f}. "I know what we can do."',
        '{h} looked around the room and smiled. "I have a better plan," {h.he} said.',
    )
    t.say("So they {instead}.", "Together they {instead}.", "They {instead}. It was so much fun!")
    t.turn()
    t.say(
        "They laughed so hard that they did not hear the rain anymore.",
        '"This is even better," said {f}.',
        "They played until their sides hurt from laughing.",
    )
    t.say(
        "When the rain stopped, there was a big rainbow in the sky.",
        "Later the sun came out. But they did not even notice.",
        '"I hope it rains tomorrow too!" said {h}, and {f} laughed.',
    )
    close_story(
        t,
        (
            "a bad day can turn into a good one",
            "you can have fun anywhere with a friend",
            "a new idea can save the day",
        ),
        ("and {f} loved rainy days", "was never sad about the rain"),
    )


def new_neighbor(t: Tale) -> None:
    """Someone new and shy arrives; the hero tries twice and finds what they both like."""
    cast_hero(t)
    cast_friend(t)
    bind_place(t, "park", "garden", "yard", "meadow", "beach")
    t.bind(
        liking=t.pick(
            (
                "drawing",
                "singing",
                "building towers",
                "looking at bugs",
                "making soup out of mud",
                "counting clouds",
                "jumping in puddles",
                "collecting stones",
            )
        )
    )
    open_story(t, "{h.he} [loved|liked] {liking}[ more than anything|], but {h.he} had no one to do it with.")
    one_day(
        t,
        "{a f.noun} moved in next door. {f.his} name was {f}.",
        "{h} saw a new face {p.at}. It was {a f.noun} named {f}.",
        "a new family came, and with them came {f}, {a f.noun}.",
    )
    t.say(
        '"Hello! Do you want to play?" asked {h}. But {f} only looked at the ground.',
        "{h} waved. But {f} hid behind a tree.",
        '"Hi, I am {h}," said {h}. {f} did not say a word.',
    )
    t.say(
        '"Maybe {f.he} does not like me," {h} thought.',
        "{h} was puzzled. Was {f} angry?",
        "{h} went home and thought about it. Maybe {f} was just shy.",
    )
    t.turn()
    t.say(
        "The next day, {h} brought {f} {h.food}. {f} took it and smiled a tiny smile.",
        "The next day, {h} tried again. {h.he} sat down near {f} and said nothing at all.",
        '{h} did not give up. {h.he} left a note that said, "Welcome!"',
    )
    t.say(
        "Then {h} saw something. {f} was {liking} {s1}!",
        "A little later, {h} walked past and saw that {f} was {liking}.",
        '"Do you like {liking}?" asked {h}. {f} looked up, and {f.his} eyes shone.',
    )
    t.say(
        '"I love {liking} too!" said {h}.',
        '"Me too! I love {liking}!" said {h}. "May I join you?"',
        '"That is what I like best!" cried {h}.',
    )
    t.say(
        '"I was afraid that nobody would like me," {f} said softly.',
        '"I miss my old home," said {f}. "But it is nice to have a friend here."',
        '"Really?" asked {f}. It was the first word {f.he} had said.',
    )
    _end_new_neighbor(t)


def _end_new_neighbor(t: Tale) -> None:
    """The last part of `new_neighbor`."""
    t.turn()
    t.say(
        "From that moment, they talked and talked.",
        "They spent the whole day together.",
        "Soon they were {liking} side by side and laughing.",
    )
    glad(t)
    close_story(
        t,
        (
            "shy people need a little time",
            "a friend may be hiding behind a quiet face",
            "it is worth it to try again",
        ),
        ("and {f} were best friends", "had someone to share everything with", "always said hello to new neighbors"),
    )


CURES = (
    ("soup", "made a pot of hot soup", "The soup was warm and smelled of carrots"),
    ("a song", "learned a funny song by heart", "{h} sang the song, with a little dance"),
    ("a story", "thought up a story about a flying boat", "{h} told the story and did all the voices"),
    ("flowers", "picked a big bunch of flowers", "The flowers filled the room with color"),
    ("tea with honey", "asked the bees for some honey and made tea", "The tea was sweet and good for the throat"),
    ("a soft blanket", "sewed a blanket out of soft old cloth", "The blanket was warm and as light as a cloud"),
)


def sick_friend(t: Tale) -> None:
    """A friend is ill and lonely; the hero brings something simple that helps."""
    cast_hero(t)
    cast_friend(t)
    cure, work, effect = t.pick(CURES)
    t.bind(cure=cure, work=work, effect=effect)
    open_story(t, "{h.he} played with {h.his} friend {f}, {a f.noun}, every day.")
    one_day(
        t,
        "{f} did not come out to play.",
        "{h} waited for {f}, but {f} did not come.",
        "{h} knocked at {f}'s door. Nobody came out to play.",
    )
    t.say(
        "{f} was sick in bed. {f.his} head was hot.",
        '"{f} has a bad cold and must stay in bed," {h.he} heard.',
        "{h} looked through the window. {f} was lying in bed with a red nose.",
    )
    t.say(
        '"Poor {f}!" thought {h}. "What can I do?"',
        "{h} wanted to help. But {h.he} was not a doctor.",
        "It was no fun to play without {f}. {h} wanted to make {f.him} feel better.",
    )
    t.turn()
    t.say(
        "Then {h} had an idea. {h.he} {work}.",
        "{h} went home and {work}.",
        '"I know!" said {h}. So {h.he} {work}.',
    )
    t.say(
        "It was not easy, but {h} did not stop until it was just right.",
        "The first try went wrong, but the second one was good.",
        "It took all [morning|afternoon].",
    )
    t.say(
        'Then {h} went to {f}\'s house. "I brought you {cure}," {h.he} said.',
        '"Surprise!" said {h} at {f}\'s door. "I have {cure} for you."',
        "{h} walked to {f} with {cure}.",
    )
    t.turn()
    t.say("{effect}.", "{effect}. {f} sat up in bed.")
    t.say(
        "{f} smiled for the first time that day.",
        '"I feel better already," said {f}.',
        "Soon {f} did not look so pale anymore.",
    )
    thank(t, "h", "f")
    t.say(
        "Two days later, {f} was well again, and they played outside.",
        "The next week, they ran and jumped together again.",
        "When {h} had a cold a month later, {f} came with {cure}.",
    )
    close_story(
        t,
        ("a good friend is the best medicine", "small things can help a lot", "friends take care of each other"),
        ("and {f} took care of each other", "always visited friends who were sick"),
    )


def new_bridge(t: Tale) -> None:
    """A quarrel or a flood divides two friends, and they build the way back."""
    cast_hero(t)
    cast_friend(t)
    cast_elder(t)
    t.bind(
        over=t.pick(
            (
                "who could jump farther",
                "whose turn it was",
                "the last cookie",
                "a blue crayon",
                "who was taller",
                "which game to play",
                "a shiny shell",
            )
        )
    )
    t.bind(build=t.pick(("a tree house", "a sand castle", "a snowman", "a fort of pillows", "a little raft")))
    open_story(t, "{h.he} and {f}, {a f.noun}, did everything together.")
    one_day(
        t,
        "{h} and {f} wanted to build {build}. But then they began to fight about {over}.",
        "they had a big fight about {over}.",
        "they were building {build} when they began to quarrel about {over}.",
    )
    t.say(
        '"You are mean!" said {h}. "No, you are!" said {f}.',
        '"I do not want to play with you anymore!" {f} shouted.',
        "They said things that were not nice at all.",
    )
    t.say("{f} went home.", "They turned their backs and walked away.", "{h} ran home and shut the door.")
    t.turn()
    t.say(
        "At home, {h} tried to build {build} alone. It was no fun.",
        "{h} sat by the window. The day was very long without {f}.",
        "{h} tried to read, but {h.he} could only think of {f}.",
    )
    sad(t)
    t.say(
        '"What is it?" asked {e}. {h} told {e.him} about the fight.',
        '{e} saw {h.his} face. "Did you two have a fight?" {e.he} asked.',
        '"Where is {f} today?" asked {e}. {h} told {e.him} what had happened.',
    )
    t.say(
        '"Was it worth losing a friend for?" asked {e}. {h} shook {h.his} head.',
        '"The first one to say sorry is the brave one," said {e}.',
        '"What would make it better?" asked {e}. "If I said sorry," {h} said slowly.',
    )
    _end_new_bridge(t)


def _end_new_bridge(t: Tale) -> None:
    """The last part of `new_bridge`."""
    t.turn()
    t.say(
        "So {h} went to {f}'s house. Halfway there, {h.he} met {f}, who was coming to {h.him}!",
        "{h} ran all the way to {f}. They looked at each other.",
        "{h} knocked at {f}'s door. {f} opened it at once.",
    )
    t.say(
        '"I am sorry," they both said at the same time, and then they laughed.',
        '"I am sorry," said {h}. "I am sorry too," said {f}. "I missed you."',
        '"I was wrong," said {h}. "I missed you." "I missed you too," said {f}.',
        '"I am sorry," said {h}. "Let us never fight about such a small thing again," said {f}.',
    )
    t.say(
        "Together they built {build}, and it was the best one ever.",
        "Then they went to build {build}, side by side.",
        "They built {build} until it was dark.",
    )
    close_story(
        t,
        ("saying sorry can fix a lot", "a friend is worth more than being right", "it is brave to say sorry first"),
        ("and {f} always made up quickly", "was quick to say sorry"),
    )


def sharing(t: Tale) -> None:
    """The hero will not share, finds that alone is no fun, and shares after all."""
    cast_hero(t)
    cast_friend(t)
    bind_place(t, "park", "garden", "yard", "meadow")
    bind_toy(t)
    open_story(t, trait=t.pick(("proud", "stubborn", "clever", "lively")))
    one_day(
        t,
        "{h} got {a o} [for {h.his} birthday|as a present]. {h.he} took it to {p}.",
        "{h} went to {p} with {a o}. It was brand new.",
        "{h} brought {h.his} {o} to {p}. It was a present from {h.his} uncle.",
    )
    t.say(
        '{f} the {f.kind} saw it and asked, "Can I play with it too?"',
        '{h.his} friend {f} came over. "What a lovely {o.kind}! May I try it?" {f.he} asked.',
        '"Please, may I have a turn?" asked {f}, a {f.noun}.',
    )
    t.say(
        '"No!" said {h}. "It is mine!"',
        '{h} held the {o.kind} tight. "No, it is only for me," {h.he} said.',
        '"No," said {h}. "You might break it."',
    )
    t.say("{f} looked sad and walked away.", "{f} hung {f.his} head and left.", "So {f} went away [slowly|quietly].")
    t.turn()
    t.say(
        "{h} played with the {o.kind} alone. But [soon it was boring|it was not much fun].",
        "Now {h} had the {o.kind} all to {h.himself}. But there was no one to laugh with.",
        "{h} sat {s1} with the {o.kind}. It was very quiet, and {h.he} felt lonely.",
    )
    t.say(
        '"[It is no fun to play alone|I was not kind to {f}]," {h} thought.',
        "{h} looked at {f}, who sat {s2} all alone. {h.he} felt bad.",
        "Then {h} remembered how sad {f} had looked.",
    )
    t.say(
        '{h} ran to {f}. "I am sorry," {h.he} said. "Let us play together."',
        '{h.he} went to {f} and held out the {o.kind}. "You can go first," {h.he} said.',
        '"I am sorry, {f}," said {h}. "Do you want to share my {o.kind}?"',
    )
    t.turn()
    t.say('"Yes!" said {f}.', "{f} smiled.", '"I would love to!" said {f}.')
    t.say(
        "They took turns and laughed all afternoon.",
        "Together they made up a new game with the {o.kind}.",
        "They played with the {o} until it was time to go home.",
    )
    glad(t, t.pick(("h", "f")))
    close_story(
        t,
        ("sharing makes everything more fun", "a toy is better with a friend", "sharing is better than having"),
        ("always shared {h.his} toys", "and {f} shared everything", "was glad to share"),
    )


PLOTS = (rainy_day, new_neighbor, sick_friend, new_bridge, sharing)
