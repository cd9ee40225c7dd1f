# SPDX-License-Identifier: Apache-2.0
"""Plots about going out: a feared stranger, the way home, a map."""

from __future__ import annotations

from training.storygrammar.common import (
    bind_place,
    cast_animal,
    cast_elder,
    cast_friend,
    cast_hero,
    close_story,
    one_day,
    open_story,
    sad,
)
from training.storygrammar.engine import Tale

# (who, where, what people say, what is really the matter, what helps, what the stranger does in thanks)
STRANGERS = (
    (
        "dragon",
        "on the black hill",
        "it burned down houses",
        "had a bad toothache",
        "pulled out the sore tooth",
        "lit all the lamps in the streets every evening",
    ),
    (
        "giant",
        "behind the mill",
        "it broke every house it saw",
        "had no one to talk to",
        "invited the giant to dinner",
        "carried the heavy stones for the new school",
    ),
    (
        "wolf",
        "in the dark woods",
        "it howled to scare people",
        "had a thorn in its paw",
        "pulled out the thorn",
        "watched over the sheep at night",
    ),
    (
        "troll",
        "under the bridge",
        "it threw people into the river",
        "was cold and hungry",
        "brought warm bread and a coat",
        "helped old people across the bridge",
    ),
    (
        "sea monster",
        "in the deep bay",
        "it sank ships",
        "had a net around its tail",
        "cut the net with a small knife",
        "pulled the fishing boats home when there was no wind",
    ),
    (
        "ghost",
        "in the old tower",
        "it stole things at night",
        "wanted to hear a bedtime story",
        "read a story out loud",
        "rang the tower bell every morning",
    ),
)


def feared_stranger(t: Tale) -> None:
    """Everyone fears a monster; the hero goes to see and finds someone who needs help."""
    cast_hero(t, 0.7, 0.05)
    who, where, rumor, trouble, help_, thanks = t.pick(STRANGERS)
    t.bind(who=who, where=where, rumor=rumor, trouble=trouble, help=help_, thanks=thanks)
    open_story(t, trait=t.pick(("brave", "curious", "kind", "bold", "small but brave")))
    t.say(
        "Everyone was afraid of the {who} that lived {where}. They said that {rumor}.",
        "A {who} lived {where}. People said that {rumor}.",
        '"Never go near the {who} {where}," the old people said. "We heard that {rumor}."',
    )
    one_day(
        t,
        "{h} heard a loud cry. It came from the place where the {who} lived.",
        "{h} heard the {who} cry, and it did not sound angry at all. It sounded sad.",
        '{h} asked, "Has anyone ever talked to the {who}?" Nobody had.',
    )
    t.turn()
    t.say(
        "{h} was scared, but {h.he} went to look.",
        '"I will go and see," said {h}. {h.his} knees shook, but {h.he} went.',
        "So {h} took a deep breath and went there alone.",
    )
    t.say(
        "There sat the {who}. Big tears rolled down its face.",
        "The {who} was huge. But it was crying.",
        '"Go away!" said the {who}. But {h.he} saw that its eyes were wet.',
    )
    t.say(
        '"Why are you crying?" asked {h}.',
        '"What is wrong?" {h} asked in a soft voice.',
        '"Can I help you?" asked {h}.',
    )
    t.say(
        "The {who} {trouble}. And nobody had ever asked.",
        "It was simple: the {who} {trouble}.",
        "{h} listened. Now {h.he} understood: the {who} {trouble}.",
    )
    t.turn()
    t.say("So {h} {help}.", "{h} did not wait. {h.he} {help}.", "The next day, {h} came back and {help}.")
    t.say(
        '"Thank you," said the {who}. "You are the first one who was kind to me."',
        'The {who} smiled for the first time in years. "Thank you, {h}," it said.',
        '"Nobody ever helped me before," said the {who}.',
    )
    t.say(
        "From then on, the {who} {thanks}.",
        "To say thanks, the {who} {thanks}.",
        "Soon nobody was afraid anymore, for the {who} {thanks}.",
    )
    close_story(
        t,
        (
            "you should not believe all that people say",
            "someone who looks scary may just need a friend",
            "kindness is stronger than fear",
        ),
        ("and the {who} were friends", "visited the {who} every Sunday"),
    )


GUIDES = (
    ("the little stream", "water always finds its way down to the village", "followed the water around every bend"),
    ("the evening star", "the star stands right above the house", "kept the star in front of {h.him}"),
    ("the smell of bread", "someone is baking at home", "followed {h.his} nose"),
    ("the sound of the bell", "the bell is near the house", "stopped often to listen for the bell"),
    ("the white stones", "the stones show the old path", "went from one stone to the next"),
)


def way_home(t: Tale) -> None:
    """The hero goes too far, loses the way, stays calm and finds home by a clever sign."""
    cast_hero(t)
    cast_elder(t)
    guide, reason, walk = t.pick(GUIDES)
    t.bind(guide=guide, reason=reason, walk=walk)
    t.bind(
        lure=t.pick(
            (
                "a blue butterfly",
                "a white rabbit",
                "a trail of berries",
                "a golden leaf in the wind",
                "a strange song",
                "a red balloon",
            )
        )
    )
    cast_animal(t, "k", gift=t.pick(("fly", "small", "dig")))
    open_story(t)
    one_day(
        t,
        "{h} saw {lure} and followed it into the forest.",
        '{e} said, "Do not go too far!" But {h} saw {lure} and went after it.',
        "{h} was picking flowers near the forest when {h.he} saw {lure}.",
    )
    t.say(
        "{h.he} went on and on and did not look back.",
        "Deeper and deeper {h.he} went, until all the trees looked the same.",
        "{h.he} ran this way and that way. Then {lure} was gone.",
    )
    t.say(
        '"Where am I?" said {h}. {h.he} was lost.',
        "Now {h} was lost, and it was getting dark.",
        "{h} turned around. {h.he} did not know the way home!",
    )
    sad(t)
    t.turn()
    t.say(
        'A {k.noun} looked out from behind a tree. "Are you lost?" asked the {k.kind}.',
        'Just then, {h} heard a small voice. It was {a k.noun}. "Do not cry," said the {k.kind}.',
        '{h} saw {a k.noun}. "Please, do you know the way home?" {h.he} asked.',
    )
    t.say(
        '"Be calm and think," said the {k.kind}. "Follow {guide}, because {reason}."',
        'The {k.kind} pointed to {guide}. "Go that way," it said. "You see, {reason}."',
        '"I cannot come with you," said the {k.kind}, "but {guide} can lead you."',
    )
    t.say(
        "{h} thanked the {k.kind} and {walk}.",
        "So {h} {walk}. Step by step, {h.he} felt less afraid.",
        "{h} dried {h.his} tears and {walk}.",
    )
    _end_way_home(t)


def _end_way_home(t: Tale) -> None:
    """The last part of `way_home`."""
    t.turn()
    t.say(
        "At last {h.he} saw a light. It was the window of {h.his} own house!",
        "After a long walk, {h} saw the house. {e} was standing at the door with a lamp.",
        "And there, behind the last tree, was home!",
    )
    t.say(
        '"{e.call}!" cried {h}. {e} held {h.him} tight.',
        '"I was so worried," said {e}, and gave {h.him} a big hug.',
        "{h} ran into the arms of {e}.",
    )
    t.say(
        '"I am sorry that I went so far," said {h}.',
        "They drank warm milk, and {h} told the whole story.",
        '"You were clever to find the way," said {e}.',
    )
    close_story(
        t,
        ("it helps to stay calm", "it is good to remember the way back", "there is no place like home"),
        ("never went too far alone", "looked for {guide} on every walk"),
    )


TREASURES = (
    ("a box of old toys", "They cleaned the toys and gave one to every child on the street"),
    ("a bag of seeds", "They planted the seeds, and in spring there were flowers everywhere"),
    ("a golden cup", "They gave the cup to the museum, and their names were put on the wall"),
    ("a jar of honey", "They ate the honey with bread until they were full"),
    ("a letter", 'The letter said, "The real treasure is the friend who came with you."'),
    ("a small telescope", "That night, they looked at the moon and counted the stars"),
)


def treasure_map(t: Tale) -> None:
    """Two friends follow a map over two obstacles; what they find is best when shared."""
    cast_hero(t)
    cast_friend(t)
    bind_place(t)
    treasure, after = t.pick(TREASURES)
    t.bind(
        treasure=treasure,
        after=after,
        where=t.pick(("in an old book", "in a bottle", "under a loose board", "in the pocket of an old coat")),
    )
    first, second = t.rng.sample(
        (
            ("a wide stream", "They jumped from stone to stone"),
            ("a thick hedge", "{f} found a small hole, and they crawled through it"),
            ("a steep hill", "They held hands and pulled each other up"),
            ("a locked gate", "{h} saw the key under a stone"),
            ("a dark tunnel", "They sang a song so that they would not be afraid"),
            ("a sleeping dog", "They walked past it on the tips of their toes"),
        ),
        2,
    )
    t.bind(b1=first[0], c1=first[1], b2=second[0], c2=second[1])
    open_story(t)
    one_day(
        t,
        "{h} found an old map {where}. There was a red cross on it.",
        "{h} found a piece of paper {where}. It was a treasure map!",
    )
    t.say(
        '{h} showed it to {h.his} friend {f}, {a f.noun}. "Let us find the treasure!" {f.he} said.',
        '{h} ran to {f}, {a f.noun}. "Will you come with me?" {h.he} asked. "Of course!" said {f}.',
    )
    t.turn()
    t.say(
        "First, they came to {b1}. {c1}.", "Soon there was {b1} in their way. {c1}.", "The map led them to {b1}. {c1}."
    )
    t.say("Then they came to {b2}. {c2}.", "After that, there was {b2}. {c2}.", "Next, the map showed {b2}. {c2}.")
    t.maybe(
        0.6,
        '"I am tired," said {f}. "We are almost there," said {h}.',
        "{f} wanted to go home, but {h} shared {h.food} with {f.him}, and they went on.",
        '"What if there is nothing?" asked {h}. "Then we had a good walk," said {f}.',
    )
    t.say("At last they found the red cross {s1}.", "The cross was right there, {s1}.", "The map ended {s1}.")
    _end_treasure_map(t)


def _end_treasure_map(t: Tale) -> None:
    """The last part of `treasure_map`."""
    t.turn()
    t.say(
        "They dug and dug. There was a small box, and in it was {treasure}!",
        '"Dig here!" said {h}. Soon they found {treasure}.',
        "{f} began to dig. Clonk! They pulled out a chest, and in it they found {treasure}.",
    )
    t.say(
        '"It belongs to both of us," said {h}.',
        '"We did it together!" said {f}.',
        "They looked at each other and laughed.",
    )
    t.say("{after}.")
    close_story(
        t,
        (
            "a treasure is best when you share it",
            "the way can be as good as the goal",
            "an adventure is more fun with a friend",
        ),
        ("and {f} looked for adventures every weekend", "always kept the old map on the wall"),
    )


PLOTS = (feared_stranger, way_home, treasure_map)
