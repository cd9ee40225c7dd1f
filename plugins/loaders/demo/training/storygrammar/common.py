# SPDX-License-Identifier: Apache-2.0
"""What every plot needs: casting, openings, changes of mood and endings. Holds no plot of its own."""

from __future__ import annotations

from collections.abc import Sequence

from training.storygrammar import lexicon as words
from training.storygrammar.engine import Named, Tale, character, with_article

ELDERS = {"he": ("dad", "father", "grandpa", "uncle"), "she": ("mom", "mother", "grandma", "aunt")}
OTHER = {"he": "she", "she": "he"}


def definite(noun: str) -> str:
    """ "a drum" as "the drum"; "the moon" stays."""
    return "the " + noun.split(" ", 1)[1]


def invented_name(t: Tale) -> str:
    """A name nobody has: makes the model copy names from the story and not from memory."""
    count = 2 + int(t.chance(0.4))
    return "".join(t.pick(words.SYLLABLES) for _ in range(count)).capitalize() + t.pick(words.NAME_ENDINGS)


def fresh_name(t: Tale, names: list[str]) -> str:
    """A name no one in the tale has yet."""
    taken = {named.text for named in t.bound.values()}
    while True:
        name = invented_name(t) if t.chance(0.2) else t.pick(names)
        if name not in taken:
            return name


def cast_child(t: Tale, role: str, pronoun: str = "") -> None:
    """Bind `role` to a boy or girl."""
    pronoun = pronoun or t.pick(("he", "she"))
    kind = "boy" if pronoun == "he" else "girl"
    name = fresh_name(t, words.BOYS if pronoun == "he" else words.GIRLS)
    look = t.pick(("little", "little", "young", "small", ""))
    home = t.pick(words.CHILD_HOMES)
    t.bind(
        **{
            role: character(
                name, f"{look} {kind}".strip(), kind, pronoun, home=home, food=with_article(t.pick(words.FOODS))
            )
        }
    )


def cast_animal(t: Tale, role: str, pronoun: str = "", gift: str = "") -> None:
    """Bind `role` to an animal, of a kind the tale does not have yet, with the `gift` a plot needs."""
    taken = {named.forms.get("kind") for named in t.bound.values()}
    kinds = [a for a in (words.BY_GIFT[gift] if gift else words.ANIMALS) if a.kind not in taken]
    animal = t.pick(kinds)
    pronoun = pronoun or t.pick(("he", "she"))
    noun = f"{t.pick(animal.looks)} {animal.kind}"
    name = fresh_name(t, words.PETS if t.chance(0.7) else (words.BOYS if pronoun == "he" else words.GIRLS))
    t.bind(**{role: character(name, noun, animal.kind, pronoun, home=animal.home, food=f"some {animal.food}")})


def cast_folk(t: Tale, role: str) -> None:
    """Bind `role` to someone from a fairy tale or a trade: a dragon, a princess, a baker."""
    kind, pronouns, looks, home, food = t.pick(words.FOLK)
    pronoun = t.pick(pronouns.split())
    name = fresh_name(t, words.PETS if t.chance(0.3) else (words.BOYS if pronoun == "he" else words.GIRLS))
    noun = f"{t.pick(looks.split())} {kind}"
    t.bind(**{role: character(name, noun, kind, pronoun, home=home, food=food)})


def cast_hero(t: Tale, child: float = 0.5, folk: float = 0.15) -> None:
    """Bind `h`, the hero; `child` is the chance of a boy or girl, `folk` that of a fairy-tale figure."""
    draw = t.rng.random()
    if draw < child:
        cast_child(t, "h")
    elif draw < child + folk:
        cast_folk(t, "h")
    else:
        cast_animal(t, "h")


def cast_friend(t: Tale, role: str = "f", gift: str = "") -> None:
    """Bind a friend whose pronouns differ from the hero's, so that "he" and "she" stay clear."""
    pronoun = OTHER[t.bound["h"].forms["he"]]
    child_hero = t.bound["h"].forms["kind"] in ("boy", "girl")
    if not gift and child_hero and t.chance(0.7):
        cast_child(t, role, pronoun)
    else:
        cast_animal(t, role, pronoun, gift)


def cast_elder(t: Tale) -> None:
    """Bind `e`, a parent or grandparent of the hero ("his mom"; `{e.call}` is how the hero calls her)."""
    hero = t.bound["h"].forms
    pronoun = OTHER[hero["he"]]
    word = t.pick(ELDERS[pronoun])
    call = {"mother": "Mom", "father": "Dad"}.get(word, word.capitalize())
    if word in ("uncle", "aunt"):
        call = {"uncle": "Uncle", "aunt": "Auntie"}[word]
    t.bind(e=character(f"{hero['his']} {word}", word, word, pronoun, call=call))


def bind_place(t: Tale, *names: str) -> None:
    """Bind `p` (with `{p.at}`) and three different spots `s1` `s2` `s3` and two findings `x1` `x2`."""
    place = words.BY_PLACE[t.pick(names)] if names else t.pick(words.PLACES)
    spots = t.rng.sample(place.spots, 3)
    found = t.rng.sample(place.found, 2)
    t.bind(p=Named(place.name, {"at": place.at}), s1=spots[0], s2=spots[1], s3=spots[2], x1=found[0], x2=found[1])


def bind_toy(t: Tale, things: tuple[str, ...] = words.TOYS) -> None:
    """Bind `o` to a thing with a color ("red kite") and `{o.kind}` to its bare word."""
    kind = t.pick(things)
    full = f"{t.pick(words.COLORS)} {kind}" if t.chance(0.7) else f"{t.pick(('little', 'new', 'old', 'big'))} {kind}"
    t.bind(o=Named(full, {"kind": kind}))


def open_story(t: Tale, about: str = "", trait: str = "") -> None:
    """Introduce the hero. `about` is a sentence the plot needs known ("{h} loved a red kite")."""
    t.bind(trait=trait or t.pick(words.TRAITS), home=t.bound["h"].forms["home"])
    t.bind(weather=t.pick(words.WEATHER), daytime=t.pick(words.DAYTIMES))
    t.today = t.chance(0.15)
    if t.today:
        _begin_with_the_day(t)
    else:
        _begin_with_the_hero(t)
    if about:
        t.say(about)
    elif t.chance(0.4):
        t.bind(hobby=t.pick(words.HOBBIES))
        t.say(
            "{h.he} [liked|loved] to {hobby}.", "{h} [liked|loved] to {hobby}.", "Most of all, {h.he} liked to {hobby}."
        )


def _begin_with_the_day(t: Tale) -> None:
    t.say(
        "One day, a {h.noun} named {h} [woke up early|was playing outside|went for a walk].",
        "One day, {a trait} {h.kind} named {h} wanted to have an adventure.",
        "One {daytime}, a {h.noun} named {h} [opened the door and stepped outside|looked up at the sky].",
        "One {weather} {daytime}, a {h.noun} named {h} [went out to play|was in a good mood].",
        "One {weather} {daytime}, {h} the {h.kind} woke up early. [{h.he} was [very|] {trait}.|]",
        "It was a {weather} {daytime}. {h} the {h.kind} [was in a good mood|wanted to go out].",
        "It was a {weather} day. A {h.noun} named {h} [was playing outside|looked out of the window].",
        "On a {weather} {daytime}, a {h.noun} named {h} was wide awake.",
        "The sun was shining. {h} the {h.kind} [was very happy|wanted to play].",
    )


def _begin_with_the_hero(t: Tale) -> None:
    t.say(
        "Once upon a time, there was {a trait} {h.kind} named {h}.",
        "Once upon a time, there was a {h.noun} named {h}. [{h} was [very|always] {trait}.|]",
        "Once upon a time there was a {h.noun} whose name was {h}. [{h.he} lived {home}.|]",
        "Once upon a time, {home}, there lived a {h.noun} named {h}.",
        "Once upon a time, a {h.noun} named {h} lived {home}. [{h.he} was [very|] {trait}.|]",
        "There was once a {h.noun} called {h}, who lived {home}.",
        "There was a {h.noun} named {h}. {h.he} [lived {home}|was [very|] {trait}].",
        "Long ago, {home}, lived {a trait} {h.kind} named {h}.",
        "Far away, {home}, there lived a {h.noun}. {h.his} name was {h}.",
        "{h} was a {h.noun} who lived {home}. [{h.he} was [very|] {trait}.|]",
        "{h} was {a trait} {h.kind}. [{h.he} lived {home}.|]",
        "{home} lived a {h.noun} named {h}. [Everyone said that {h.he} was [very|] {trait}.|]",
        "This is the story of {h}, {a trait} {h.kind} who lived {home}.",
        "A {h.noun} named {h} lived {home}. [{h.he} was {trait} and full of ideas.|]",
        "In a land far away, there was {a trait} {h.kind} named {h}.",
        "There once was a {h.noun} named {h}, who was [very|] {trait}.",
        "A long time ago, {home}, there was a {h.noun} named {h}.",
        "{h} the {h.kind} lived {home}. [{h.he} was [very|] {trait}.|]",
        "The {h.noun} who lived {home} was called {h}.",
    )


def one_day(t: Tale, *happenings: str) -> None:
    """The day of the story begins. `happenings` start with a small letter and follow "One day, "."""
    if t.today:
        starts: tuple[str, ...] = ("", "That {daytime}, ", "A little later, ", "After a while, ")
    else:
        starts = (
            "One day, ",
            "One {weather} {daytime}, ",
            "One {daytime}, ",
            "On a {weather} {daytime}, ",
            "Then one day, ",
        )
    t.say(*(start + t.pick(happenings) for start in starts))


def sad(t: Tale, who: str = "h") -> None:
    """`who` feels bad, in one sentence."""
    t.say(
        *(
            line.replace("@", who)
            for line in (
                "{@} felt [very|so] sad.",
                "{@} [was sad and|] did not know what to do.",
                "A tear rolled down {@.his} cheek.",
                "{@} sat down and [sighed|began to cry|put {@.his} head in {@.his} hands].",
                '"Oh no!" [said|cried] {@}. [{@.he} felt like crying.|]',
                "{@.he} felt [a lump in {@.his} throat|sad and small inside].",
            )
        )
    )


def glad(t: Tale, who: str = "h") -> None:
    """`who` feels good, in one sentence."""
    t.say(
        *(
            line.replace("@", who)
            for line in (
                "{@} was so happy that {@.he} [jumped up and down|laughed out loud|clapped and danced].",
                "{@} [smiled|grinned] from ear to ear.",
                '"[Hooray|Yay|Yes]!" [shouted|cried|said] {@}.',
                "{@.his} eyes [shone|sparkled] with joy.",
                "{@} felt warm and happy inside.",
                "{@} [laughed|smiled] and [spun around|clapped {@.his} hands].",
            )
        )
    )


def thank(t: Tale, giver: str = "f", taker: str = "h") -> None:
    """`taker` thanks `giver`."""
    t.say(
        *(
            line.replace("@", taker).replace("%", giver)
            for line in (
                '"Thank you, {%.call}!" said {@}.',
                '"Thank you so much, {%.call}," said {@}. ["You are a good friend."|"I will never forget this."|]',
                '{@} gave {%} a big hug and said, "Thank you[ for your help|]!"',
                '"You helped me," said {@}. "Thank you, {%.call}!"',
                '"Thank you!" {@} said to {%}. ["You are very kind."|]',
            )
        )
    )


def close_story(t: Tale, lessons: Sequence[str], habits: Sequence[str]) -> None:
    """End with what was learned: a lesson follows "learned that", a habit follows "From that day on, {h}"."""
    lesson, habit = t.pick(lessons), t.pick(habits)
    t.bind(lesson=lesson, habit=habit)
    t.say(
        "{h} learned that {lesson}.",
        "That day, {h} learned that {lesson}.",
        "And so {h} learned that {lesson}.",
        "{h} never forgot that {lesson}.",
        'That night, in bed, {h} thought, "Now I know that {lesson}."',
        "From that day on, {h} {habit}.",
        "After that day, {h} {habit}.",
        "From then on, {h} {habit}.",
        "{h} learned that {lesson}. From that day on, {h.he} {habit}.",
    )
    t.maybe(0.2, "The end.", "And {h} lived happily ever after.", "{h} went to sleep with a smile.")
