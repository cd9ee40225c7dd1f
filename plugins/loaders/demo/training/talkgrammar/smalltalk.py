# SPDX-License-Identifier: Apache-2.0
"""Talk about the model itself, politeness, what to remember or repeat, stories, and what the model cannot do."""

from __future__ import annotations

import re

from training.storygrammar import lexicon
from training.storygrammar.engine import articles
from training.storygrammar.generate import tale
from training.talkgrammar import facts
from training.talkgrammar.wording import Exchange, Speaker

WHO = "I am the demo model of Tramontane, a very small language model."
WHAT = "I can tell short stories, answer simple questions and use tools."
UNKNOWN = "I do not know that. I am a very small model."
NO_TOOL = "I have no tool for that."


# (up to which draw, the answer, wordings of the question)
Answers = tuple[tuple[float, str, tuple[str, ...]], ...]
IDENTITY: Answers = (
    (
        0.4,
        WHO,
        (
            "[so, |hello, |hi, |hey, |and |please, |] who are you [really|exactly|]?",
            "[hello, |hi, |hey, |so, |please, |] what are you [really|exactly|]?",
            "[hello, |hi, |hey, |so, |please, |] what is your name?",
            "[can you|please|] [tell me|say] who you are[ please|].",
            "[please|could you|can you] introduce yourself[ to me|].",
            "[tell me|say] [something|a little] about yourself[ please|].",
            "which model are you?",
            "[what|which] [language|] model [is this|are you]?",
        ),
    ),
    (
        0.65,
        WHAT,
        (
            "[hello, |hi, |hey, |so, |and |please, |] what can you [really|] do [for me|]?",
            "[how|with what] can you help [me|us|]?",
            "what are you good [at|for]?",
            "[tell me|please say|say] what you can do[ for me|].",
            "help[ me|]",
            "what [things|] can I ask you?",
        ),
    ),
    (
        0.85,
        "No, I am a very small language model.",
        (
            "are you [really|] a [human|person|real person|man|woman|human being|child] [or not|]?",
            "[tell me, |so |] are you a [human|person|real person|robot|man|woman|child]?",
        ),
    ),
    (
        1.0,
        "I was trained by the Tramontane project.",
        (
            "who [made|trained|built|created|wrote] you?",
            "[by whom|by which project] were you [made|trained|built|created]?",
            "[tell me|do you know|can you say] who [made|trained|built|created] you.",
        ),
    ),
)
POLITENESS: Answers = (
    (
        0.35,
        "Hello! How can I help you?",
        ("[hello|hi|hey|good morning|good evening|good day] [there|you|my friend|demo|][!|.|]",),
    ),
    (
        0.55,
        "I am fine, thank you.",
        ("[hello, |hi, |hey, |and |so, |] how are you [today|doing|feeling|]?", "how do you do?"),
    ),
    (
        0.8,
        "You are welcome!",
        ("[thanks|thank you|many thanks] [a lot|very much|so much|for your help|my friend|][!|.]",),
    ),
    (
        1.0,
        "Goodbye!",
        ("[bye|goodbye|good night|see you|see you later|bye bye] [now|then|my friend|demo|][!|.]",),
    ),
)


def one_of(s: Speaker, kind: str, answers: Answers) -> Exchange:
    """One of the answers, asked for in one of its wordings."""
    draw = s.rng.random()
    answer, wordings = next((answer, wordings) for upto, answer, wordings in answers if draw < upto)
    return Exchange(kind, s.ask(*wordings).replace(" !", "!").replace(" .", "."), answer)


def identity(s: Speaker) -> Exchange:
    """Who the model is."""
    return one_of(s, "identity", IDENTITY)


def politeness(s: Speaker) -> Exchange:
    """Greetings and thanks."""
    return one_of(s, "politeness", POLITENESS)


def thing_of(s: Speaker) -> str:
    """Something with an adjective, at times unheard of."""
    noun = s.pick((s.pick(lexicon.TOYS), s.pick(lexicon.ANIMALS).kind, s.invented()))
    return f"{s.pick((s.pick(lexicon.COLORS), s.pick(lexicon.TRAITS)))} {noun}"


def memory(s: Speaker) -> Exchange:
    """Something said in an earlier turn and asked for later."""
    draw = s.rng.random()
    if draw < 0.6:
        name = s.name()
        said = s.ask("[hello, |hi, |] my name is {x}.", "[hello, |hi, |] I am {x}.", "[please|] call me {x}.", x=name)
        answer, asked = f"Nice to meet you, {name}!", s.ask("[so, |] what is my name?", "what's my name?", "who am I?")
        reply = f"Your name is {name}."
    elif draw < 0.8:
        city = s.pick(facts.CITIES) if s.chance(0.6) else s.invented().capitalize()
        said = s.ask("I live in {x}.", "I am from {x}.", "my home is in {x}.", x=city)
        answer, asked = f"{city} sounds nice.", s.ask("[so, |] where do I live?", "where am I from?")
        reply = f"You live in {city}."
    else:
        thing = thing_of(s)
        said = s.ask("I have {a x}.", "I [just|] bought {a x}.", "I [got|found] {a x}.", x=thing)
        answer, asked = f"A {thing} sounds nice.", s.ask("[so, |] what do I have?", "[so, |] what have I got?")
        reply = f"You have a {thing}."
    if s.chance(0.3):
        return Exchange("memory", articles(said), articles(answer))
    return Exchange("memory", asked, articles(reply), before=((articles(said), articles(answer)),))


ROLES = facts.words(
    "robot assistant wizard dragon teacher sailor baker parrot guide ghost poet librarian cat pirate farmer"
)


def persona(s: Speaker) -> Exchange:
    """The system prompt says who the model is, and it says so."""
    role = s.pick(ROLES) if s.chance(0.7) else s.invented()
    trait = s.pick((*lexicon.TRAITS, "helpful", "friendly", "small", "old"))
    who = s.pick((f"{s.name()}, a {trait} {role}", f"a {trait} {role}", f"{s.name()} the {role}", s.name()))
    who = articles(who)
    question = s.ask("who are you?", "[and|so,|hello,] who are you?", "what are you?", "tell me who you are.")
    return Exchange("persona", question, f"I am {who}.", system=f"You are {who}.")


def repeat(s: Speaker) -> Exchange:
    """Say again what the user says, or put it in quotes."""
    draw = s.rng.random()
    if draw < 0.3:
        text = s.pick((s.name(), s.pick(facts.CITIES), s.invented().capitalize(), s.invented(), thing_of(s)))
        return Exchange(
            "repeat", s.pick(("Quote {}", "Put {} in quotes", "Please quote {}")).format(text) + ".", f'"{text}"'
        )
    if draw < 0.5:
        text = " ".join(str(s.number(0, 10 ** s.number(1, 6) - 1)) for _ in range(s.number(1, 3)))
    elif draw < 0.7:
        text = " ".join(s.invented() if s.chance(0.3) else s.pick(_words()) for _ in range(s.number(1, 5)))
    else:
        text = s.word(
            s.pick(
                (
                    "the {x} is [here|gone|mine|on the table]",
                    "{n} has {a x}",
                    "I like the {x}",
                    "{n} and {m} went to {c}",
                    "[yes|no|hello|wait], {n}",
                    "my {x} is called {n}",
                )
            ),
            x=thing_of(s),
            n=s.name(),
            m=s.name(),
            c=s.pick(facts.CITIES),
        )
    text = articles(text)
    text = text[0].upper() + text[1:] + (s.pick((".", "!", "", "")) if draw >= 0.5 else "")
    lead = s.pick(("Repeat after me: ", "Repeat: ", "Say: ", "Please repeat: ", "Say this: ", "Repeat this: "))
    return Exchange("repeat", lead + (f'"{text}"' if s.chance(0.25) else text), text)


def _words() -> tuple[str, ...]:
    return (*lexicon.TOYS, *lexicon.FOODS, *lexicon.COLORS, *lexicon.TRAITS)


# Heroes that the story grammar does not have.
HEROES = facts.words(
    "unicorn pirate cow whale knight mermaid horse lion tiger wolf goat bee crab clown king queen doctor painter troll "
    "elf ghost chicken goose camel zebra panda koala seal otter parrot peacock snail spider ant beetle camel teacher "
    "gardener fisherman train tractor teapot lamp cloud star"
)


def story(s: Speaker) -> Exchange:
    """A story about the hero that was asked for; the grammar's hero at times becomes something it does not have."""
    told = tale(s.number(0, 10**8))
    hero, text = told.bound["h"], told.text()
    kind, noun = hero.forms["kind"], hero.forms["noun"]
    if kind not in ("boy", "girl") and s.chance(0.4):
        other = s.invented() if s.chance(0.25) else s.pick(HEROES)
        text = re.sub(rf"\b([Aa])n (?={kind}\b)", r"\1 ", text)
        text = articles(re.sub(rf"\b(?<!teddy ){kind}\b", other, text))
        kind, noun = other, noun.replace(kind, other)
    if s.chance(0.35):
        # A beginning is all that is said: the answer is the whole story.
        words = text.split(" ")[: s.number(3, 9)]
        return Exchange("story", s.pick(("", "", "Go on: ")) + " ".join(words).strip("\n"), text)
    question = s.ask(
        "[please|can you|could you|] tell me a [short|] story about a {k} [named|called] {n}[ please|].",
        "[tell|write] [me|us] a [short|nice|] story about a {k}[ please|].",
        "tell me a story about {n} the {k}.",
        "[please|can you|could you|] [tell|write] a story about a {k}.",
        "[tell me|can you tell me|I want to hear|please tell me] a story.",
        "[tell|write] [me|us] a [short|nice|] story about a {d}[ please|].",
        k=kind,
        n=hero.text,
        d=noun,
    )
    return Exchange("story", articles(question), text)


def unknown(s: Speaker) -> Exchange:
    """What a very small model does not know."""
    question = s.ask(
        "who [is|was] {n} {m}?",
        "what is the meaning of {w}?",
        "what is {w}?",
        "[why|how|when] did {n} [invent|discover|build|find] the {w}?",
        "[explain|describe] {w} [to me|in detail|].",
        "[write|show me|give me] [a python program|some code|a poem|an essay|a letter] about {w}.",
        "what is the [price|weight|size|age|population] of {w}?",
        "how do I [fix|cook|install|repair|sell] a {w}?",
        "translate {w} [to|into] [French|German|Spanish|Latin|Greek].",
        "who won the [game|election|race|war|prize] in {y}?",
        "what happened in {y}?",
        "what is {y} [*|times|+|minus] {z}?",
        n=s.name(),
        m=s.invented().capitalize(),
        w=s.invented() if s.chance(0.5) else s.pick(SUBJECTS),
        y=s.number(100, 2100),
        z=s.number(11, 999),
    )
    return Exchange("unknown", articles(question), UNKNOWN)


SUBJECTS = facts.words(
    "gravity electricity democracy economics philosophy chemistry physics quantum computers politics history art "
    "religion music theory algebra geometry bitcoin medicine poetry law grammar evolution climate energy"
)


def needs_a_tool(s: Speaker) -> Exchange:
    """What could only be looked up, asked where no tool can."""
    question = s.ask(
        "[what is|what's|how is] the weather [like|] in {c} [today|now|]?",
        "[is it|will it be] [warm|cold|sunny|raining|snowing|windy] in {c} [today|now|tomorrow|]?",
        "what time is it [now|] in {c}?",
        "what is the [temperature|forecast] in {c}?",
        "send [an email|a message] to {n}.",
        "[set|start] a timer for {k} minutes.",
        "[search|look] for {w} [on the web|online|].",
        "play the song {w}.",
        "book a table for {k} people in {c}.",
        "what is the stock price of {n}?",
        "turn on the [light|lamp|radio|heating].",
        c=s.pick(facts.CITIES) if s.chance(0.6) else s.invented().capitalize(),
        n=s.name(),
        k=s.number(2, 60),
        w=s.invented(),
    )
    return Exchange("no tool", question, NO_TOOL)


KINDS = (identity, politeness, memory, persona, repeat, unknown, needs_a_tool)
