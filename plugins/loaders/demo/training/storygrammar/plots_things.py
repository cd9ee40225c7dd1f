# SPDX-License-Identifier: Apache-2.0
"""Plots about things: lost, stuck, shared, broken, made as a gift, found and given back."""

from __future__ import annotations

from storygrammar import lexicon as words
from storygrammar.common import (
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
from storygrammar.engine import Named, Tale


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
        '{h} told {f} about the lost {o.kind}.',
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
        t.pick(("it is good to ask for help", "two can find what one cannot", "a friend can help you see")),
        t.pick(("took good care of the {o.kind}", "always asked for help when {h.he} needed it",
                "and {f} played with the {o.kind} together")),
    )  # fmt: skip


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
    bind_toy(t, words.FLYING if gift in ("fly", "climb", "tall") else ("ball", "hat", "toy boat", "paper plane", "doll"))
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
        t.pick(("everyone is good at something", "a friend can do what you cannot", "it is fine to need help")),
        t.pick(("and {f} were best friends", "never played too near that spot", "looked for ways to help others too")),
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
        t.pick(("sharing makes everything more fun", "a toy is better with a friend", "sharing is better than having")),
        t.pick(("always shared {h.his} toys", "and {f} shared everything", "was glad to share")),
    )


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
        "it was raining, so {h} had to play inside.",
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
        t.pick(("the truth makes you feel better", "telling the truth is brave", "a lie is heavier than a mistake")),
        t.pick(("always told the truth", "never blamed {blamed} again", "was more careful in the house")),
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
        t.pick(("the best gifts come from the heart", "a gift does not have to cost money",
                "a small gift can make a big smile")),
        t.pick(("made all {h.his} presents by hand", "and {f} were closer than ever")),
    )  # fmt: skip


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
        t.pick(("it feels good to do what is right", "a happy friend is worth more than a treasure",
                "being fair is better than being rich")),
        t.pick(("always gave back what {h.he} found", "and {f} were friends")),
    )  # fmt: skip


PLOTS = (lost_thing, stuck_thing, sharing, broken_thing, made_gift, found_thing)
