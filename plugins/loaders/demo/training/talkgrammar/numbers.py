# SPDX-License-Identifier: Apache-2.0
"""Questions about numbers: counting, neighbours, comparisons and small sums and differences."""

from __future__ import annotations

from training.talkgrammar.wording import Exchange, Speaker


def listed(words: list[str]) -> str:
    """ "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def counting(s: Speaker) -> Exchange:
    """Count up or down, at most ten numbers."""
    first = 1 if s.chance(0.4) else s.number(0, 10)
    last = first + s.number(2, 9)
    if s.chance(0.3):
        first, last = last, first
        question = s.ask("[please|] count [down|backwards] from {a} to {b}.", a=first, b=last)
    elif first == 1 and s.chance(0.6):
        question = s.ask("[please|can you|] count [up|] to {b}.", "count to {b} [for me|please].", b=last)
    else:
        question = s.ask("[please|can you|] count [up|] from {a} to {b}.", a=first, b=last)
    step = 1 if last > first else -1
    return Exchange("counting", question, ", ".join(str(n) for n in range(first, last + step, step)) + ".")


def neighbours(s: Speaker) -> Exchange:
    """The number before or after another."""
    number = s.number(1, 20)
    if s.chance(0.6):
        question = s.ask(
            "[what|which number] comes [right|] after {n}?", "what is the [next number|number] after {n}?", n=number
        )
        return Exchange("counting", question, f"After {number} comes {number + 1}.")
    question = s.ask("[what|which number] comes [right|just|] before {n}?", "what is the number before {n}?", n=number)
    return Exchange("counting", question, f"Before {number} comes {number - 1}.")


SUMS = (
    "[what is|how much is|what's|calculate|compute] {a} {sign} {b}?",
    "[can you|please] [calculate|compute|tell me|work out] {a} {sign} {b}.",
    "{a} {sign} {b}",
    "{a} {sign} {b} = ?",
    "[what does|how much does] {a} {sign} {b} make?",
)
SIGNS = {"+": ("+", "+", "plus", "and"), "-": ("-", "-", "minus")}


def arithmetic(s: Speaker) -> Exchange:
    """Sums up to 10 and differences from up to 10."""
    operation = s.pick("++-")
    a = s.number(0, 10)
    b = s.number(0, 10 - a if operation == "+" else a)
    result = a + b if operation == "+" else a - b
    question = s.ask(*SUMS, a=a, b=b, sign=s.pick(SIGNS[operation]))
    return Exchange("arithmetic", question, f"{a} {operation} {b} = {result}")


def comparison(s: Speaker) -> Exchange:
    """The bigger or the smaller of two different numbers, and whether one is bigger."""
    a = s.number(0, 20)
    b = (a + s.number(1, 20)) % 21
    big, small = max(a, b), min(a, b)
    draw = s.rng.random()
    if draw < 0.35:
        question = s.ask("which [number|] is [bigger|larger|greater], {a} or {b}?", a=a, b=b)
        return Exchange("comparison", question, f"{big} is bigger than {small}.")
    if draw < 0.6:
        question = s.ask("which [number|] is smaller, {a} or {b}?", a=a, b=b)
        return Exchange("comparison", question, f"{small} is smaller than {big}.")
    question = s.ask("is {a} [bigger|larger|greater|more] than {b}?", a=a, b=b)
    answer = f"Yes, {a} is bigger than {b}." if a > b else f"No, {a} is smaller than {b}."
    return Exchange("comparison", question, answer)


KINDS = (counting, neighbours, arithmetic, comparison)
