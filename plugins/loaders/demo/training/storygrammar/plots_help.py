# SPDX-License-Identifier: Apache-2.0
"""Plots about help: a lost baby, a favor returned, a heavy load, something stuck, something lost."""

from __future__ import annotations

from training.storygrammar import lexicon as words
from training.storygrammar.common import (
    bind_place,
    bind_toy,
    cast_animal,
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

BABIES = (
    ("duckling", "mother duck", "by the pond", "swimming in a circle and calling"),
    ("kitten", "mother cat", "behind the old house", "looking under every step"),
    ("puppy", "mother dog", "near the barn", "sniffing the ground"),
    ("bear cub", "mother bear", "by the river", "looking behind every tree"),
    ("chick", "mother hen", "by the chicken house", "running up and down"),
    ("baby rabbit", "mother rabbit", "near the burrow", "looking out with worried eyes"),
    ("baby bird", "mother bird", "in the tall tree", "flying from branch to branch"),
    ("fawn", "mother deer", "at the edge of the forest", "standing still and listening"),
)


def lost_baby(t: Tale) -> None:
    """The hero finds a lost baby animal and brings it to its mother."""
    cast_hero(t, 0.85)
    bind_place(t)
    baby, mother, where, doing = t.pick(BABIES)
    t.bind(baby=baby, m=mother, where=where, doing=doing)
    t.bind(small=t.pick(("little", "tiny", "small", "wet", "scared")))
    open_story(t)
    one_day(
        t,
        "{h} was walking {p.at} when {h.he} heard a soft cry.",
        "{h} went to {p}. {s1}, something was making a sad little sound.",
        "{h} was playing {p.at}. Then {h.he} heard someone cry {s1}.",
    )
    t.say(
        "It was a {small} {baby}, all alone.",
        "{h} looked {s1} and saw a {small} {baby}.",
        "There sat a {small} {baby}. It was shaking.",
    )
    t.say(
        '"Are you lost?" asked {h}. The {baby} nodded.',
        '"Where is your mother?" {h} asked. The {baby} began to cry again.',
        '"I cannot find my mommy," said the {baby}.',
    )
    t.turn()
    t.say(
        '"Do not worry," said {h}. "I will help you find her."',
        '{h} picked up the {baby} and held it close. "I will take you home," {h.he} said.',
        '"Come with me," said {h}. "We will find her together."',
    )
    t.say(
        "First, they looked {s2}. Nobody was there.",
        "They asked a [snail|crow|butterfly|beetle], but it had not seen the {m}.",
        "They looked {s2} and {s3}, but there was no {m}.",
    )
    t.maybe(
        0.6,
        "The {baby} was tired. {h} sang a song, and it felt better.",
        "{h} shared {h.food} with the {baby}.",
        '"Are we there yet?" asked the {baby}. "Soon," said {h}.',
    )
    t.say(
        "They went on and on. At last, there was the {m} {where}, {doing}!",
        "At last, {where}, they saw the {m}. She was {doing}.",
        "And then they heard a voice {where}. It was the {m}, {doing}.",
    )
    _end_lost_baby(t)


def _end_lost_baby(t: Tale) -> None:
    """The last part of `lost_baby`."""
    t.turn()
    t.say(
        '"Mommy!" cried the {baby}, and it ran to her.',
        "The {baby} gave a happy cry and ran to its mother.",
        "The {m} put her head on the {baby} and closed her eyes with joy.",
    )
    t.say(
        '"Thank you for bringing my baby home," said the {m}.',
        'The {m} said to {h}, "You have a good heart."',
        '"How can I thank you?" asked the {m}. "I am just glad you are together," said {h}.',
    )
    glad(t)
    close_story(
        t,
        (
            "it feels good to help someone small",
            "a little kindness can mean a lot",
            "no one is too small to be a hero",
        ),
        ("visited the {baby} every week", "always listened when someone cried", "had a new little friend"),
    )


TRAPS = (
    ("strong", "got caught in a net", "bit through the net, one string at a time"),
    ("strong", "had a sharp thorn in {f.his} foot", "pulled the thorn out with tiny hands"),
    ("tall", "got {f.his} head stuck between two branches", "climbed up and pushed the branches apart"),
    ("strong", "fell into a deep hole", "called all the neighbors, who built steps of stone"),
)


def small_helper(t: Tale) -> None:
    """A big animal spares or mocks a small one, and is later saved by it."""
    cast_animal(t, "h", gift="small")
    gift, trap, rescue = t.pick(TRAPS)
    cast_animal(t, "f", "she" if t.bound["h"].forms["he"] == "he" else "he", gift)
    bind_place(t, "forest", "meadow")
    t.bind(trap=trap, rescue=rescue)
    open_story(t)
    one_day(
        t,
        "{h} ran right into {f}, {a f.noun}.",
        "{h} met {a f.noun} named {f}.",
        "{f}, {a f.noun}, almost stepped on {h}.",
    )
    t.say(
        '"You are so small," said {f}. "What can you do?" And {f.he} laughed.',
        '"Please be careful," said {h}. "One day I may help you." {f} laughed. "You? You are so tiny!"',
        '{f} looked down. "You are no bigger than an acorn," {f.he} said.',
    )
    t.say(
        "{h} did not get angry. {h.he} only smiled and went home.",
        '"Small friends can be good friends," {h} said.',
        "That hurt a little, but {h} said nothing.",
    )
    t.turn()
    t.say(
        'A few days later, {f} {trap}. "Help! Help!" {f.he} cried.',
        "Then {f} {trap}. {f.he} tried everything, but it was no use.",
        "The next morning, {f} {trap}. No one was there to help.",
    )
    t.say(
        "{h} heard it from far away and ran as fast as {h.he} could.",
        "{h} heard the cry and came at once.",
        "It was {h} who heard {f.him}.",
    )
    t.say('"Hold still," said {h}. "I will help you."', '"Do not be afraid," {h} said.', '"You came!" said {f}.')
    t.say("{h} {rescue}.", "Bit by bit, {h} {rescue}.")
    t.turn()
    t.say("At last {f} was free!", "It took a long time, but then {f} was free.", "Soon {f} was free again.")
    t.say(
        '"I am sorry that I laughed at you," said {f}. "You are small, but your heart is big."',
        '{f} lowered {f.his} head. "I was wrong about you," {f.he} said. "Thank you."',
        '"You saved me," said {f}. "How can I thank you?" "Just be my friend," said {h}.',
    )
    t.say(
        "{f} let {h} ride on {f.his} back all the way home.",
        "They shared {h.food} and watched the sun go down.",
        "They were friends from that day on.",
    )
    close_story(
        t,
        ("even the smallest can help", "it is not size that counts", "kindness always comes back"),
        ("and {f} helped each other", "was never called too small again"),
    )


LOADS = (
    ("a giant pumpkin", "pumpkin", "to the kitchen", "It rolled like a wheel", "made pumpkin soup for everyone"),
    ("a fallen tree", "tree", "off the path", "It slid away with a loud crack", "sat on it and ate their lunch"),
    ("a huge turnip", "turnip", "out of the ground", "It came out with a loud pop", "cooked it in a big pot"),
    ("a boat full of sand", "boat", "into the water", "It slid down the beach", "went for a ride in it"),
    ("a cart stuck in the mud", "cart", "up the hill", "It came out with a wet smack", "rode down the hill in it"),
    ("a big gray rock", "rock", "away from the door", "It tipped over and rolled away", "danced through the open door"),
)


def heavy_load(t: Tale) -> None:
    """Something is too heavy for one, and for two; with the smallest helper it moves."""
    cast_hero(t)
    cast_friend(t)
    load, bare, goal, moved, after = t.pick(LOADS)
    cast_animal(t, "k", gift="small" if t.bound["h"].forms["kind"] not in ("mouse", "hedgehog") else "swim")
    t.bind(load=load, bare=bare, goal=goal, moved=moved, after=after)
    open_story(t, trait=t.pick(("strong", "proud", "busy", "stubborn", "cheerful")))
    one_day(
        t,
        "{h} found {load}. {h.he} wanted to move it {goal}.",
        "there was {load}, and {h} had to get it {goal}.",
        '{h} saw {load}. "I will get it {goal}," {h.he} said.',
    )
    t.say(
        "{h} pushed. {h} pulled. The {bare} did not move at all.",
        '"One, two, three!" said {h}, and pushed hard. Nothing happened.',
        "{h} pulled until {h.his} face was red. But the {bare} was too heavy.",
    )
    t.turn()
    t.say(
        'Then {f}, {a f.noun}, came by. "Shall I help you?" {f.he} asked.',
        '{h} called {h.his} friend {f}. "Can you help me?"',
        "{f}, {a f.noun}, saw it and came to help.",
    )
    t.say(
        "They pushed together. The {bare} moved a tiny bit, but then it stopped.",
        "Now there were two. They pulled and pulled, but it was not enough.",
        '"Push!" said {h}. "I am pushing!" said {f}. The {bare} only shook a little.',
    )
    t.say(
        'A {k.noun} named {k} came along. "Let me help too," said {k}.',
        'Just then a tiny voice said, "I can help!" It was {k}, {a k.noun}.',
    )
    t.say(
        '"You are too small," said {h}. "But you may try."',
        '"You?" asked {f}, and laughed. But {h} said, "Every bit helps."',
        '"Thank you," said {h}. "We need everyone."',
    )
    t.turn()
    t.say(
        "All three of them pushed. {moved}!",
        "{h} pushed, {f} pushed, and {k} pushed. {moved}!",
        '"One, two, three!" they called. {moved}!',
    )
    t.say(
        '"We did it!" they [shouted|cried].',
        "They cheered and fell down in the grass, laughing.",
        '"{k} made the difference!" said {h}.',
    )
    t.say("Then they {after}.", "After that, they {after}.")
    close_story(
        t,
        ("together we are strong", "many hands make work light", "even a little help can be enough"),
        ("never said that someone was too small", "asked friends to help with hard things"),
    )


# gift -> where a thing gets stuck, how the hero fails, how the helper gets it
RESCUES = {
    "fly": ("high up in a tree", "jumped as high as {h.he} could", "flew up and pushed it off the branch"),
    "climb": ("in the top of a tall tree", "threw a stick at it", "climbed up quickly and shook the branch"),
    "tall": ("on the roof of the barn", "stood on a box", "stretched {f.his} long neck and lifted it down"),
    "swim": ("in the middle of the pond", "tried to reach it with a stick", "swam out and pushed it to the shore"),
    "small": ("in a crack between two rocks", "pushed {h.his} hand in", "slipped into the crack and pulled it out"),
    "dig": ("under a heap of sand", "scratched at the sand", "dug and dug until it came out"),
    "strong": ("under a fallen log", "pulled as hard as {h.he} could", "lifted the log as if it were a twig"),
}


def stuck_thing(t: Tale) -> None:
    """A thing gets stuck where the hero cannot reach it; a helper with the right gift can."""
    cast_hero(t, 0.8)
    gift = t.pick(tuple(RESCUES))
    cast_friend(t, gift=gift)
    where, tried, solved = RESCUES[gift]
    bind_toy(
        t, words.FLYING if gift in ("fly", "climb", "tall") else ("ball", "hat", "toy boat", "paper plane", "doll")
    )
    t.bind(where=where, tried=tried, solved=solved)
    open_story(t, "{h} [loved|liked] to play with {h.his} {o}.")
    one_day(
        t,
        "the wind blew hard, and the {o} landed {where}.",
        "{h} was playing with the {o.kind} when it ended up {where}.",
        "{h} slipped, and the {o} got stuck {where}.",
    )
    t.say('"Oh no! My {o.kind}!" cried {h}.', "{h} could not reach it.", '"How will I get it back?" {h} asked.')
    t.turn()
    t.say(
        "{h} {tried}, but it did not work.",
        "First, {h} {tried}. It was no use.",
        "{h.he} {tried}. The {o.kind} stayed where it was.",
    )
    sad(t)
    t.say(
        "A {f.noun} named {f} was watching.",
        "{f}, a {f.noun}, heard {h} and came closer.",
        "Then a {f.noun} came by. {f.his} name was {f}.",
    )
    t.say(
        '"I can help you," said {f}. ["That is easy for me!"|"Wait here."|]',
        '"Do not be sad," said {f}. "Let me try."',
        '"May I try?" asked {f} [softly|with a smile]. "Yes, please!" said {h}.',
    )
    t.say("{f} {solved}.", "Then {f} {solved}. It took only a moment.", "With care, {f} {solved}.")
    t.turn()
    t.say("{h} had the {o.kind} back!", "{f} gave the {o} back to {h}.", "Now {h} could hold the {o.kind} again.")
    thank(t)
    t.maybe(
        0.6,
        "{h} and {f} played together until the sun went down.",
        '"Do you want to play with me?" asked {h}. {f} nodded, and they played all day.',
        "{h} gave {f} {h.food}, and they became good friends.",
    )
    close_story(
        t,
        ("everyone is good at something", "a friend can do what you cannot", "it is fine to need help"),
        ("and {f} were best friends", "never played too near that spot", "looked for ways to help others too"),
    )


def lost_thing(t: Tale) -> None:
    """The hero loses a dear thing, looks in two wrong spots, and a friend knows the right one."""
    cast_hero(t)
    cast_friend(t)
    bind_place(t)
    bind_toy(t)
    open_story(t, "{h} had {a o} [and took it everywhere|that {h.he} loved more than anything|from {h.his} grandma].")
    one_day(
        t,
        "{h} took the {o.kind} to {p}. But when it was time to go home, the {o.kind} was gone!",
        "{h} played {p.at}. Suddenly {h.he} saw that {h.his} {o.kind} was missing.",
        "{h} could not find the {o.kind}. {h.he} had lost it {p.at}.",
        "{h} fell asleep {p.at}. When {h.he} woke up, the {o} was not there.",
    )
    sad(t)
    t.turn()
    t.say(
        "First, {h} looked {s1}. There was only {x1}.",
        "{h} looked {s1}, but {h.he} found only {x1}.",
        "{h.he} searched {s1}. All {h.he} found was {x1}.",
    )
    t.say(
        "Then {h.he} looked {s2}. {h.he} found {x2}, but no {o.kind}.",
        "Next, {h.he} looked {s2}. [No {o.kind}.|It was not there either.]",
        "{h.he} ran to look {s2}, but there was just {x2}.",
    )
    t.say(
        'Just then, {f} the {f.kind} came by. "What is wrong?" {f.he} asked.',
        'A {f.noun} named {f} saw {h}. "Why are you so sad?" asked {f}.',
        '{h} met {h.his} friend {f}. "Can I help you?" asked {f}.',
    )
    t.say(
        '"I lost my {o}," said {h}. ["I have looked everywhere!"|]',
        '"My {o.kind} is gone!" {h} [cried|said]. ["Have you seen it?"|]',
        "{h} told {f} about the lost {o.kind}.",
    )
    t.turn()
    t.say(
        '"I saw {a o} {s3}," said {f}. "Come with me!"',
        '{f} thought for a moment. "Did you look {s3}?" {f.he} asked.',
        '"Let us look together," said {f}. They looked and looked, and at last they looked {s3}.',
    )
    t.say(
        "They ran there, and there was the {o}!",
        "And there it was! The {o.kind} was [a little dirty|a bit wet], but it was not broken.",
        "There, {s3}, lay the {o.kind}.",
    )
    glad(t)
    thank(t)
    close_story(
        t,
        ("it is good to ask for help", "two can find what one cannot", "a friend can help you see"),
        (
            "took good care of the {o.kind}",
            "always asked for help when {h.he} needed it",
            "and {f} played with the {o.kind} together",
        ),
    )


PLOTS = (lost_baby, small_helper, heavy_load, stuck_thing, lost_thing)
