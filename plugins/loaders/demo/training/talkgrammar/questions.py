# SPDX-License-Identifier: Apache-2.0
"""Questions about the tables of facts. Each function draws one exchange."""

from __future__ import annotations

from collections.abc import Sequence

from training.storygrammar.engine import articles
from training.talkgrammar import facts
from training.talkgrammar.numbers import listed
from training.talkgrammar.wording import Exchange, Speaker


def upper(text: str) -> str:
    """`text` with a capital first letter."""
    return text[0].upper() + text[1:]


def told(s: Speaker, kind: str, table: Sequence[tuple[str, str]], wordings: Sequence[str], answer: str) -> Exchange:
    """A question about the left side of a row ``{x}``, whose answer names the right side ``{y}`` too."""
    x, y = s.pick(table)
    return Exchange(kind, articles(s.ask(*wordings, x=x)), articles(upper(answer.format(x=x, y=y))))


def colors(s: Speaker) -> Exchange:
    """The colour of a thing."""
    wordings = (
        "what [color|colour] is {x}?",
        "what is the [color|colour] of {x}?",
        "which [color|colour] does {x} have?",
        "[tell me|do you know] the [color|colour] of {x}[ please|].",
        "[can you tell me|do you know] what [color|colour] {x} is?",
    )
    return told(s, "colors", facts.COLORS, wordings, "{x} is {y}.")


def opposites(s: Speaker) -> Exchange:
    """The opposite of a word, either way round where that is clear."""
    left, right = s.pick(facts.OPPOSITES)
    if right != "light" and left != "light" and s.chance(0.4):
        left, right = right, left
    quote = '"' if s.chance(0.25) else ""
    question = s.ask(
        "what is the opposite of {q}{x}{q}?",
        "what's the opposite of {q}{x}{q}?",
        "[give|tell] me the opposite of {q}{x}{q}.",
        "[do you know|can you tell me] the opposite of {q}{x}{q}?",
        "which word [is|means] the opposite of {q}{x}{q}?",
        "opposite of {q}{x}{q}?",
        x=left,
        q=quote,
    )
    return Exchange("opposites", question, f"The opposite of {left} is {right}.")


def capitals(s: Speaker) -> Exchange:
    """The capital of a country, or the country of a capital."""
    country, city = s.pick(facts.CAPITALS)
    if s.chance(0.25):
        question = s.ask(
            "{x} is the capital of which country?",
            "which country has the capital {x}?",
            "[of which country is|what country is] {x} the capital[ of|]?",
            x=city,
        )
    else:
        question = s.ask(
            "what is the capital [city|] of {x}?",
            "what's the capital of {x}?",
            "[tell me|name] the capital of {x}.",
            "which city is the capital of {x}?",
            "[do you know|can you tell me] the capital of {x}?",
            "what is {x}'s capital?",
            "capital of {x}?",
            x=country,
        )
    return Exchange("capitals", question, f"The capital of {country} is {city}.")


def calendar(s: Speaker) -> Exchange:
    """Days and months, in order."""
    month = s.chance(0.5)
    names = facts.MONTHS if month else facts.DAYS
    unit = "month" if month else "day"
    at = s.number(0, len(names) - 1)
    before = s.chance(0.4)
    side = "before" if before else "after"
    other = names[(at + (-1 if before else 1)) % len(names)]
    question = s.ask(
        "[what|which] {unit} comes [right|] {side} {x}?",
        "what is the {unit} {side} {x}?",
        "[what|which] {unit} is {side} {x}?",
        "[tell me|name] the {unit} {side} {x}.",
        "what comes {side} {x}?",
        "[do you know|can you tell me] [what|which] {unit} comes {side} {x}?",
        unit=unit,
        side=side,
        x=names[at],
    )
    return Exchange("calendar", question, f"{other} comes {side} {names[at]}.")


def amounts(s: Speaker) -> Exchange:
    """How many of something make something."""
    part, whole, answer = s.pick(facts.AMOUNTS)
    question = s.ask(
        "how many {part} are [there|] in {whole}?",
        "how many {part} does {whole} have?",
        "how many {part} has {whole}?",
        "[do you know|can you tell me|tell me] how many {part} {whole} has[ please|]?",
        part=part,
        whole=whole,
    )
    return Exchange("amounts", question, answer)


# (up to which draw, table, wordings of the question, answer)
ANIMALS = (
    (
        0.35,
        facts.SOUNDS,
        (
            "what [sound|noise] does a {x} make?",
            "what does a {x} say?",
            "[how does a {x} sound|what is the sound of a {x}]?",
            "[tell me|do you know] [what a {x} says|the sound of a {x}].",
        ),
        'a {x} says "{y}".',
    ),
    (
        0.7,
        facts.YOUNG,
        (
            "what is a [baby|young] {x} [called|]?",
            "[what do you call|what is the name of|how do you call] a [baby|young] {x}?",
            "what is the [baby|child] of a {x} called?",
        ),
        "a young {x} is called a {y}.",
    ),
    (
        1.0,
        facts.LEGS,
        (
            "how many legs does a {x} have?",
            "how many legs has a {x} [got|]?",
            "[tell me|do you know] how many legs a {x} has.",
        ),
        "a {x} has {y} legs.",
    ),
)


def animals(s: Speaker) -> Exchange:
    """Sounds, young and legs."""
    draw = s.rng.random()
    return told(s, "animals", *next(row for upto, *row in ANIMALS if draw < upto))


def one(thing: str) -> str:
    """ "a rose", but "Monday"."""
    return thing if thing in ("red", "blue", "Monday", "May") else f"a {thing}"


def kind_sentence(thing: str, kind: str) -> str:
    """ "A rose is a flower." """
    return articles(f"{upper(one(thing))} is a {kind}.")


def kinds(s: Speaker) -> Exchange:
    """What something is."""
    thing, kind = s.pick(facts.KINDS)
    question = s.ask(
        "what is {x}?",
        "what's {x}?",
        "what kind of thing is {x}?",
        "[tell me|do you know|can you tell me] what {x} is[ please|].",
        x=one(thing),
    )
    return Exchange("kinds", articles(question), kind_sentence(thing, kind))


def yes_or_no(s: Speaker) -> Exchange:
    """Questions answered by yes or no and the fact."""
    draw = s.rng.random()
    if draw < 0.35:
        thing, color = s.pick(facts.COLORS)
        said = color if s.chance(0.5) else s.pick(facts.COLOR_NAMES)
        question = s.ask("is {x} {c}?", "is it true that {x} is {c}?", "is {x} [really|] {c}?", x=thing, c=said)
        answer = f"{'Yes' if said == color else 'No'}, {thing} is {color}."
    elif draw < 0.65:
        thing, kind = s.pick(facts.KINDS)
        said = kind if s.chance(0.5) else s.pick(facts.KIND_NAMES)
        subject = one(thing)
        question = s.ask("is {x} a {k}?", "is it true that {x} is a {k}?", "is {x} [really|] a {k}?", x=subject, k=said)
        fact = kind_sentence(thing, kind)
        answer = f"{'Yes' if said == kind else 'No'}, {subject[0]}{fact[1:]}"
    else:
        who = s.pick(tuple(facts.ABLE))
        able = facts.ABLE[who]
        doing = s.pick(sorted(able)) if able and s.chance(0.4) else s.pick(facts.ABILITIES)
        question = s.ask("can a {x} {v}?", "[is it true that|do you think that] a {x} can {v}?", x=who, v=doing)
        can = doing in able
        answer = f"{'Yes' if can else 'No'}, a {who} {'can' if can else 'cannot'} {doing}."
    return Exchange("yes or no", articles(question), articles(answer))


def lists(s: Speaker) -> Exchange:
    """Some things of a kind, always the same ones."""
    kind = s.pick(tuple(facts.LISTS))
    count = s.number(2, 5)
    number = ("two", "three", "four", "five")[count - 2]
    question = s.ask(
        "[name|list|tell me|give me|say] {n} {x}[ please|].",
        "[can you|could you|please] [name|list] {n} {x}[ for me|]?",
        n=number if s.chance(0.6) else count,
        x=kind,
    )
    return Exchange("lists", question, upper(listed(list(facts.LISTS[kind][:count]))) + ".")


KINDS = (colors, opposites, capitals, calendar, amounts, animals, kinds, yes_or_no, lists)
