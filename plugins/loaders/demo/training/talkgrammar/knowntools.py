# SPDX-License-Identifier: Apache-2.0
"""Tools that are known by name, in several spellings: weather, calculators, clocks, searches and the like."""

from __future__ import annotations

import json

from training.storygrammar import lexicon
from training.talkgrammar.smalltalk import thing_of
from training.talkgrammar.toolbox import (
    PLACES,
    Call,
    Need,
    Parameter,
    Tool,
    Value,
    amount,
    answer_of,
    broken,
    place,
    result_of,
    spelled,
)
from training.talkgrammar.wording import Speaker

SKIES = ("sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "clear", "stormy", "partly cloudy", "light rain", "hot")


def weather_result(s: Speaker, city: str, fahrenheit: bool) -> tuple[str, str]:
    """A weather report in one of its usual shapes, and the answer."""
    degrees, sky = s.number(-15, 40), s.pick(SKIES)
    if fahrenheit:
        degrees = s.number(10, 99)
    draw = s.rng.random()
    if draw < 0.06:
        result = broken(s)
        return result, answer_of(result)
    if draw < 0.2:
        unit = s.pick((" degrees", "°C", "°F", "C"))
        result = s.pick((f"{sky}, {degrees}{unit}", f"{degrees}{unit}, {sky}", f"{degrees}{unit} and {sky}", sky))
        if s.chance(0.4):
            result = f"It is {sky} and {degrees} degrees in {city}."
        return result, answer_of(result)
    report: dict[str, Value] = {}
    if s.chance(0.25):
        report[s.pick(PLACES)] = city
    report[s.pick(("temperature", "temperature", "temp", "degrees", "temperature_c", "temp_c"))] = degrees
    if s.chance(0.2):
        report["unit"] = s.pick(("celsius", "C")) if not fahrenheit else s.pick(("fahrenheit", "F"))
    if s.chance(0.85):
        report[s.pick(("condition", "conditions", "weather", "sky", "description", "forecast", "summary"))] = sky
    if s.chance(0.15):
        report[s.pick(("wind", "humidity", "rain"))] = s.number(0, 99)
    items = list(report.items())
    if s.chance(0.3):
        s.rng.shuffle(items)
    result = json.dumps(dict(items))
    return result, answer_of(result, f"In {city} ")


def weather(s: Speaker) -> Need:
    """The weather in one city or two."""
    words = s.pick((("get", "weather"), ("get", "weather"), ("get", "current", "weather"), ("weather",), ("forecast",)))
    key = s.pick(("city", "city", "location", "location", "place", "town"))
    parameters = [Parameter(key)]
    unit = s.chance(0.35)
    if unit:
        parameters.append(Parameter(s.pick(("unit", "units")), "string", s.chance(0.15), ("celsius", "fahrenheit")))
    description = s.word(
        "[get|gets|returns|look up|find] the [current|] [weather|weather report|temperature] [in|of|for] a "
        "[city|place|given city|location][.|]"
    )
    tool = Tool(spelled(s, *words), description[0].upper() + description[1:], tuple(parameters))
    cities = [place(s)]
    if s.chance(0.2):
        cities.append(place(s))
    named = unit and (parameters[1].required or s.chance(0.5))
    scale = s.pick(("celsius", "fahrenheit"))
    request = s.ask(
        "[what is|what's|how is|how's] the weather [like|] in {c} [today|now|right now|]{u}?",
        "[tell me|can you tell me|I want to know|please tell me|get me|show me|check] the weather in {c}{u}.",
        "[is it|will it be] [warm|cold|sunny|raining|windy|hot] in {c} [today|now|tomorrow|]{u}?",
        "[what is|what's] the temperature in {c} [now|today|]{u}?",
        "[what is|give me|show me] the [forecast|weather forecast|weather] for {c}{u}",
        "weather in {c}{u}",
        "how [warm|cold|hot] is it in {c} [now|today|]{u}?",
        "do I need [an umbrella|a coat|a hat] in {c}{u}?",
        c=" and ".join(cities),
        u=f" in {scale}" if named else "",
    )
    request = request.replace(" ?", "?")
    calls = []
    for city in cities:
        arguments: dict[str, Value] = {key: city}
        if named:
            arguments[parameters[1].name] = scale
        calls.append(Call(arguments, *weather_result(s, city, named and scale == "fahrenheit")))
    return Need("get_weather", tool, request, calls)


SPOKEN = {"+": ("+", "+", "plus"), "-": ("-", "-", "minus"), "*": ("*", "*", "times", "x"), "/": ("/", "divided by")}


def computed(s: Speaker, a: int, b: int, sign: str) -> tuple[str, str]:
    """What the calculator gives back, and the answer."""
    if sign == "/":
        exact = a / b
        number: Value = round(exact, 2) if exact % 1 else int(exact)
    else:
        number = {"+": a + b, "-": a - b, "*": a * b}[sign]
    draw = s.rng.random()
    if draw < 0.5:
        result = json.dumps(number)
    elif draw < 0.95:
        result = json.dumps({s.pick(("result", "result", "answer", "value")): number})
    else:
        result = broken(s)
    return result, answer_of(result)


CALCULATE = (
    "[what is|how much is|what's|calculate|compute] {e}?",
    "[can you|please|could you] [calculate|compute|tell me|work out] {e}.",
    "{e}",
    "{e} = ?",
    "[use the calculator: |I need |give me ]{e}",
    "what does {e} make?",
)


def calculator(s: Speaker) -> Need:
    """A calculator that takes an expression."""
    name = s.pick(("calculator", "calculator", "calculate", "calc", "compute", "evaluate", "do_math"))
    key = s.pick(("expression", "expression", "expr", "formula", "input", "query"))
    description = s.pick(
        (
            "Calculate an expression.",
            "Evaluate a mathematical expression.",
            "A calculator for arithmetic",
            "Computes the value of an expression.",
            "Evaluate an arithmetic expression",
            "Do math.",
        )
    )
    a, b, sign = amount(s), amount(s), s.pick("++-**/")
    b += not b
    request = s.ask(*CALCULATE, e=f"{a} {s.pick(SPOKEN[sign])} {b}")
    call = Call({key: f"{a} {sign} {b}"}, *computed(s, a, b, sign))
    return Need("calculator", Tool(name, description, (Parameter(key),)), request, (call,))


OPERATIONS = {"+": ("add", "sum"), "-": ("subtract", "minus"), "*": ("multiply", "times"), "/": ("divide", "quotient")}


def two_numbers(s: Speaker) -> Need:
    """A tool such as add(a, b)."""
    sign = s.pick("+-*/")
    verb = s.pick(OPERATIONS[sign])
    first, second = s.pick((("a", "b"), ("a", "b"), ("x", "y"), ("first", "second"), ("left", "right")))
    kind = s.pick(("number", "integer"))
    tool = Tool(
        s.pick((verb, verb, f"{verb}_numbers")),
        f"{verb.capitalize()} two numbers{s.pick(('.', ''))}",
        (Parameter(first, kind), Parameter(second, kind)),
    )
    a, b = amount(s), amount(s)
    b += not b
    request = s.ask(*CALCULATE, e=f"{a} {s.pick(SPOKEN[sign])} {b}")
    call = Call({first: a, second: b}, *computed(s, a, b, sign))
    return Need("calculator", tool, request, (call,))


def clock(s: Speaker) -> Need:
    """The time in a city, or here."""
    name = spelled(s, *s.pick((("get", "time"), ("get", "current", "time"), ("current", "time"), ("clock",))))
    time = f"{s.number(0, 23)}:{s.number(0, 59):02}"
    result = s.pick((time, json.dumps({"time": time}), json.dumps({"result": time})))
    if s.chance(0.3):
        request = s.ask("what time is it [now|]?", "what is the time [now|]?", "[tell me|get] the [current|] time.")
        tool = Tool(name, s.pick(("Get the current time.", "Returns the time", "The time now.")))
        return Need("other known tools", tool, request, (Call({}, result, answer_of(result)),))
    key = s.pick(("city", "location", "timezone", "place"))
    city = place(s)
    request = s.ask("what time is it [now|] in {c}?", "[what is|tell me|get] the [current|] time in {c}.", c=city)
    tool = Tool(name, s.pick(("Get the current time in a city.", "The time in a place")), (Parameter(key),))
    return Need("other known tools", tool, request, (Call({key: city}, result, answer_of(result)),))


# (name, description, key, requests) of tools with one text: what the user says goes in as it is.
SIMPLE = (
    ("search", "Search the web.", "query", ("[search|look] [the web|online|] for {x}.", "[find|google] {x}.")),
    (
        "web_search",
        "Search the internet",
        "query",
        ("search [the internet|online|] for {x}.", "look up {x} [online|]."),
    ),
    ("get_stock_price", "Get the price of a stock.", "symbol", ("what is the [stock|] price of {x}?",)),
    ("play_song", "Play a song.", "title", ("play [the song|] {x}.", "[please|] play {x} [for me|].")),
    ("define_word", "Look up a word.", "word", ("define [the word|] {x}.", "what does {x} mean?")),
    ("add_note", "Save a note.", "text", ("[save|make|write] a note: {x}.", "note [down|] that {x}.")),
    ("open_app", "Open an app.", "app", ("open [the app|] {x}.", "[please|] [start|launch] {x}.")),
    ("get_user", "Get a user by name.", "name", ("[find|show|get] the user {x}.", "who is the user {x}?")),
)


def simple(s: Speaker) -> Need:
    """A well-known tool with one text."""
    name, description, key, requests = s.pick(SIMPLE)
    value = s.pick((s.invented(), s.name(), thing_of(s), f"{s.invented()} {s.invented()}", s.pick(lexicon.FOODS)))
    result = result_of(s)
    request = s.ask(*requests, x=value)
    tool = Tool(spelled(s, *name.split("_")), description, (Parameter(key),))
    return Need("other known tools", tool, request, (Call({key: value}, result, answer_of(result)),))
