# SPDX-License-Identifier: Apache-2.0
"""The slash commands: a table of name, argument, help and action. Each changes a conversation and answers with text."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence

from attrs import frozen

from tramontane.errors import RequestError
from tramontane_frontend_chat.attachments import attach
from tramontane_frontend_chat.conversation import Conversation
from tramontane_frontend_chat.themes import AUTO, THEMES, theme_named

_COMMAND = re.compile(r"/([A-Za-z]+)(?:\s+(.*))?", re.DOTALL)


class Leave(Exception):
    """The person wants to end the program."""


@frozen
class Command:
    """One slash command."""

    name: str
    argument: str
    help: str
    action: Callable[[Conversation, str], str]
    words: Callable[[Conversation], Sequence[str]] = lambda conversation: ()
    """What completes its argument."""
    paths: bool = False
    """Whether paths complete it too."""


def is_command(text: str) -> bool:
    """Whether a message is a command: a slash and letters, alone or before a space. A path like /etc/hosts is not."""
    return _COMMAND.fullmatch(text) is not None


def run_command(conversation: Conversation, text: str) -> str:
    """Carry out a command.

    Returns:
        What to tell the person.

    Raises:
        RequestError: No such command, or its argument is wrong; nothing has changed then.
        Leave: The command was ``/exit``.
    """
    match = _COMMAND.fullmatch(text)
    name, argument = (match[1].lower(), (match[2] or "").strip()) if match else (text.lstrip("/"), "")
    command = COMMANDS.get(f"/{name}")
    if command is None:
        near = difflib.get_close_matches(f"/{name}", COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "/help lists them"
        raise RequestError(f"there is no command /{name}", hint=hint)
    return command.action(conversation, argument)


def _help(conversation: Conversation, argument: str) -> str:
    usages = [f"{command.name} {command.argument}".rstrip() for command in COMMANDS.values()]
    width = max(map(len, usages))
    lines = [f"{usage:<{width}}  {command.help}" for usage, command in zip(usages, COMMANDS.values(), strict=True)]
    return "\n".join((*lines, *_HABITS))


_HABITS = (
    'Several lines: begin and end with """, or end each with \\ (Alt-Enter breaks a line on a terminal).',
    "Paths of images and sound go to models that take them; in `backticks` they stay words.",
    "Tab completes commands and paths, Ctrl-C stops an answer, Ctrl-D leaves.",
)


def _clear(conversation: Conversation, argument: str) -> str:
    conversation.clear()
    return "The conversation starts anew."


def _system(conversation: Conversation, argument: str) -> str:
    conversation.system = argument or None
    conversation.clear()
    if conversation.raw:
        return "This model has no chat template, so a system message has no effect."
    return "System message set; the conversation starts anew." if argument else "No system message."


def _stats(conversation: Conversation, argument: str) -> str:
    if argument not in ("", "on", "off"):
        raise RequestError(f"/stats takes on or off, got {argument!r}")
    display = conversation.display
    display.figures = not display.figures if not argument else argument == "on"
    return "Statistics after each answer." if display.figures else "No statistics."


def _theme(conversation: Conversation, argument: str) -> str:
    display = conversation.display
    if argument:
        display.theme = theme_named(argument, os.environ)
    names = ", ".join(f"[{name}]" if name == display.theme.name else name for name in THEMES)
    return f"Themes: {names}." + ("" if display.styled else " This terminal shows plain text whatever the theme.")


_THINKING = ("on", "off", "low", "medium", "high", "default")


def _think(conversation: Conversation, argument: str) -> str:
    if argument not in _THINKING:
        raise RequestError(f"/think takes {', '.join(_THINKING)}, got {argument!r}")
    conversation.template = {}
    if argument in ("on", "off"):
        conversation.template["enable_thinking"] = argument == "on"
    elif argument != "default":
        conversation.template["reasoning_effort"] = argument
    return f"Reasoning: {argument}, where the model's template can switch it."


def _adapter(conversation: Conversation, argument: str) -> str:
    names = list(conversation.llm.adapters)
    if not names:
        raise RequestError("no adapter is loaded", hint="start with --adapter NAME=PATH")
    if argument == "none":
        conversation.adapter = None
    elif argument:
        if argument not in names:
            raise RequestError(f"there is no adapter {argument!r}", hint=f"loaded: {', '.join(names)}, or none")
        conversation.adapter = argument
    return f"adapter = {conversation.adapter or 'none'} (loaded: {', '.join(names)})"


def _model(conversation: Conversation, argument: str) -> str:
    if not argument:
        return "\n".join((*_models(conversation), "/model NAME, a folder, a file or a hub id lets that one answer."))
    before = conversation.llm.name
    conversation.use(argument)
    name = conversation.llm.name
    if name == before:
        return f"{name} answers already."
    if conversation.raw:
        return f"{name} answers from here on: it has no chat template and continues each message on its own."
    return f"{name} answers from here on; what was said stays."


def _models(conversation: Conversation) -> Iterator[str]:
    """A line for each model, the one that answers marked."""
    if conversation.models is None:
        yield f"* {conversation.llm.name}"
        return
    cards = conversation.models.cards()
    width = max(len(card.name) for card in cards)
    for card in cards:
        mark = "*" if card.name == conversation.llm.name else " "
        said = [f"{mark} {card.name:<{width}}  {card.state}"]
        if card.max_model_len is not None:
            said.append(f"context {card.max_model_len}")
        if card.reference != card.name:
            said.append(card.reference)
        if card.aliases:
            said.append(f"also called {', '.join(card.aliases)}")
        yield " · ".join(said)


def _tools(conversation: Conversation, argument: str) -> str:
    toolbox = conversation.toolbox
    if argument == "none":
        toolbox.clear()
    elif argument:
        if conversation.raw:
            raise RequestError(f"{conversation.llm.name} has no chat template, so it calls no tools")
        toolbox.add(argument)
    return f"Tools: {', '.join(toolbox.tools) or 'none'}."


def _attach(conversation: Conversation, argument: str) -> str:
    if argument == "none":
        conversation.attached.clear()
    elif argument:
        try:
            paths = shlex.split(argument)
        except ValueError as error:
            raise RequestError(f"{argument!r} is no list of paths: {error}") from None
        conversation.attached += [attach(path) for path in paths]
    return f"Attached to the next message: {', '.join(one.name for one in conversation.attached) or 'nothing'}."


def _exit(conversation: Conversation, argument: str) -> str:
    raise Leave


def _setting(name: str, parse: Callable[[str], float]) -> Callable[[Conversation, str], str]:
    """The action that shows, sets or (``default``) unsets one sampling parameter."""

    def action(conversation: Conversation, argument: str) -> str:
        if argument == "default":
            conversation.configure(**{name: None})
        elif argument:
            try:
                value = parse(argument)
            except ValueError:
                kind = "a whole number" if parse is int else "a number"
                raise RequestError(f"{name} takes {kind} or the word default, got {argument!r}") from None
            conversation.configure(**{name: value})
        return f"{name} = {getattr(conversation.params(), name)}"

    return action


def _sampling(name: str, argument: str, said: str, field: str, parse: Callable[[str], float]) -> Command:
    return Command(name, argument, said, _setting(field, parse), _words("default"))


def _words(*words: str) -> Callable[[Conversation], Sequence[str]]:
    return lambda conversation: words


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command("/help", "", "this list", _help),
        Command("/clear", "", "forget the conversation, keep the settings", _clear),
        Command("/system", "[TEXT]", "set the system message, or remove it", _system),
        _sampling("/temperature", "[T]", "randomness: 0 takes the most likely token", "temperature", float),
        _sampling("/topk", "[K]", "choose among the K most likely tokens; 0 for all", "top_k", int),
        _sampling("/topp", "[P]", "choose among the tokens that make up P of the probability", "top_p", float),
        _sampling("/maxtokens", "[N]", "longest answer in tokens", "max_tokens", int),
        _sampling("/seed", "[N]", "make answers repeatable", "seed", int),
        Command("/think", "[on|off|low|medium|high]", "reason before answering, how much, or not at all", _think,
                _words(*_THINKING)),
        Command("/model", "[NAME|PATH|ID]", "show the models, or let another one answer", _model,
                lambda conversation: conversation.models.names() if conversation.models else (), paths=True),
        Command("/adapter", "[NAME|none]", "answer with an adapter, or with the model as it is", _adapter,
                lambda conversation: (*conversation.llm.adapters, "none")),
        Command("/attach", "[PATH ...|none]", "show what goes with the next message, or add files to it", _attach,
                _words("none"), paths=True),
        Command("/tools", "[FILE|PROVIDER|none]", "show what the model may call, or add functions of a .py or .json",
                _tools, lambda conversation: (*conversation.toolbox.providers, "none"), paths=True),
        Command("/stats", "[on|off]", "show or hide the figures after each answer", _stats, _words("on", "off")),
        Command("/theme", "[NAME]", "show or choose the colours", _theme, _words(AUTO, *THEMES)),
        Command("/exit", "", "leave", _exit),
    )
}  # fmt: skip
