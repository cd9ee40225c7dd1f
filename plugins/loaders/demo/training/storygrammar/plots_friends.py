# SPDX-License-Identifier: Apache-2.0
"""Plots about others: a lost baby, a rainy day, a new neighbor, a favor returned, a sick friend, a heavy load."""

from __future__ import annotations

from storygrammar.common import (
    bind_place,
    cast_animal,
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
from storygrammar.engine import Tale

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
        "{h} picked up the {baby} and held it close. \"I will take you home,\" {h.he} said.",
        '"Come with me," said {h}. "We will find her together."',
    )
    t.say(
        "First, they looked {s2}. Nobody was there.",
        "They asked a [snail|crow|butterfly|beetle], but it had not seen the {m}.",
        "They looked {s2} and {s3}, but there was no {m}.",
    )
    t.maybe(
        0.6,
        'The {baby} was tired. {h} sang a song, and it felt better.',
        "{h} shared {h.food} with the {baby}.",
        '"Are we there yet?" asked the {baby}. "Soon," said {h}.',
    )
    t.say(
        "They went on and on. At last, there was the {m} {where}, {doing}!",
        "At last, {where}, they saw the {m}. She was {doing}.",
        "And then they heard a voice {where}. It was the {m}, {doing}.",
    )  # fmt: skip
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
        t.pick(("it feels good to help someone small", "a little kindness can mean a lot",
                "no one is too small to be a hero")),
        t.pick(("visited the {baby} every week", "always listened when someone cried",
                "had a new little friend")),
    )  # fmt: skip


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
        t.pick(("a bad day can turn into a good one", "you can have fun anywhere with a friend",
                "a new idea can save the day")),
        t.pick(("and {f} loved rainy days", "was never sad about the rain")),
    )  # fmt: skip


def new_neighbor(t: Tale) -> None:
    """Someone new and shy arrives; the hero tries twice and finds what they both like."""
    cast_hero(t)
    cast_friend(t)
    bind_place(t, "park", "garden", "yard", "meadow", "beach")
    t.bind(liking=t.pick(("drawing", "singing", "building towers", "looking at bugs", "making soup out of mud",
                          "counting clouds", "jumping in puddles", "collecting stones")))  # fmt: skip
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
        "{h} did not give up. {h.he} left a note that said, \"Welcome!\"",
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
    t.turn()
    t.say(
        "From that moment, they talked and talked.",
        "They spent the whole day together.",
        "Soon they were {liking} side by side and laughing.",
    )
    glad(t)
    close_story(
        t,
        t.pick(("shy people need a little time", "a friend may be hiding behind a quiet face",
                "it is worth it to try again")),
        t.pick(("and {f} were best friends", "had someone to share everything with",
                "always said hello to new neighbors")),
    )  # fmt: skip


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
        "A few days later, {f} {trap}. \"Help! Help!\" {f.he} cried.",
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
        t.pick(("even the smallest can help", "it is not size that counts", "kindness always comes back")),
        t.pick(("and {f} helped each other", "was never called too small again")),
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
        'Then {h} had an idea. {h.he} {work}.',
        "{h} went home and {work}.",
        '"I know!" said {h}. So {h.he} {work}.',
    )
    t.say(
        "It was not easy, but {h} did not stop until it was just right.",
        "The first try went wrong, but the second one was good.",
        "It took all [morning|afternoon].",
    )
    t.say(
        "Then {h} went to {f}'s house. \"I brought you {cure},\" {h.he} said.",
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
        t.pick(("a good friend is the best medicine", "small things can help a lot",
                "friends take care of each other")),
        t.pick(("and {f} took care of each other", "always visited friends who were sick")),
    )  # fmt: skip


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
        "{h} saw {load}. \"I will get it {goal},\" {h.he} said.",
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
        t.pick(("together we are strong", "many hands make work light", "even a little help can be enough")),
        t.pick(("never said that someone was too small", "asked friends to help with hard things")),
    )


def new_bridge(t: Tale) -> None:
    """A quarrel or a flood divides two friends, and they build the way back."""
    cast_hero(t)
    cast_friend(t)
    cast_elder(t)
    t.bind(over=t.pick(("who could jump farther", "whose turn it was", "the last cookie", "a blue crayon",
                        "who was taller", "which game to play", "a shiny shell")))  # fmt: skip
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
    t.turn()
    t.say(
        "So {h} went to {f}'s house. Halfway there, {h.he} met {f}, who was coming to {h.him}!",
        '{h} ran to {f}. "I am sorry," {h.he} said.',
        "{h} knocked at {f}'s door. {f} opened it at once.",
    )
    t.say(
        '"I am sorry," they both said at the same time, and then they laughed.',
        '"I am sorry too," said {f}. "I missed you."',
        '"Let us never fight about such a small thing again," said {f}.',
    )
    t.say(
        "Together they built {build}, and it was the best one ever.",
        "Then they went to build {build}, side by side.",
        "They built {build} until it was dark.",
    )
    close_story(
        t,
        t.pick(("saying sorry can fix a lot", "a friend is worth more than being right",
                "it is brave to say sorry first")),
        t.pick(("and {f} always made up quickly", "was quick to say sorry")),
    )  # fmt: skip


PLOTS = (lost_baby, rainy_day, new_neighbor, small_helper, sick_friend, heavy_load, new_bridge)
