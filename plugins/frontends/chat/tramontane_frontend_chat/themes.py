# SPDX-License-Identifier: Apache-2.0
"""The colours of the terminal chat: a theme is styles by what they are for, as rich and prompt_toolkit name them."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field, frozen

from tramontane.errors import ConfigError

AUTO = "auto"


@frozen(kw_only=True)
class Theme:
    """How things look."""

    name: str
    note: str = "dim"
    """Notes, reasoning and figures, as rich writes styles."""
    code: str
    """The pygments style of code blocks."""
    markdown: Mapping[str, str] = field(factory=dict)
    """rich's ``markdown.*`` styles that differ from its own."""
    prompt: str
    """The mark in front of what is typed, as prompt_toolkit writes styles."""
    status: str
    """The status line, likewise."""
    colours: bool = True
    """Without, text has weight and slant alone."""


THEMES: dict[str, Theme] = {
    theme.name: theme
    for theme in (
        Theme(name="dark", code="monokai", prompt="ansibrightcyan bold", status="noreverse bg:ansiblack ansigray"),
        Theme(
            name="light",
            code="default",
            # rich's own are light letters on black: unreadable beside dark text on a light ground.
            markdown={
                "markdown.code": "bold blue",
                "markdown.block_quote": "blue",
                "markdown.item.bullet": "bold blue",
                "markdown.item.number": "blue",
                "markdown.h1": "bold underline blue",
                "markdown.h2": "bold blue",
                "markdown.link_url": "underline blue",
            },
            note="grey42",
            prompt="ansiblue bold",
            status="noreverse bg:ansiwhite ansiblack",
        ),
        Theme(name="plain", code="bw", prompt="bold", status="noreverse", colours=False),
    )
}


def theme_named(name: str, environ: Mapping[str, str]) -> Theme:
    """A theme by its name; ``auto`` looks at the environment.

    ``NO_COLOR`` (https://no-color.org) asks for ``plain``; ``COLORFGBG``, which rxvt, Konsole and others set to the
    numbers of their colours, tells a light ground. Any other terminal is taken for a dark one.

    Raises:
        ConfigError: There is no such theme.
    """
    if name == AUTO:
        if environ.get("NO_COLOR"):
            return THEMES["plain"]
        ground = environ.get("COLORFGBG", "").rpartition(";")[2]
        return THEMES["light" if ground in ("7", "15") else "dark"]
    if name not in THEMES:
        raise ConfigError(f"there is no theme {name!r}", hint=f"themes: {', '.join((AUTO, *THEMES))}")
    return THEMES[name]


@define
class Display:
    """How answers are shown; commands change it, the terminal reads it."""

    theme: Theme = THEMES["plain"]
    figures: bool = False
    """Whether a line of figures follows each answer."""
    styled: bool = False
    """Whether the terminal can show a theme at all."""
