# SPDX-License-Identifier: Apache-2.0
"""What the environment says about plugins: which to load, which to leave out, whom to prefer, how strict to be."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

from attrs import frozen

ALLOW = "TRAMONTANE_PLUGINS"
BLOCK = "TRAMONTANE_PLUGINS_OFF"
PREFER = "TRAMONTANE_PREFER"
STRICT = "TRAMONTANE_STRICT_PLUGINS"


@frozen
class PluginId:
    """Who a plugin is, known before anything of it is imported."""

    name: str
    """The entry-point name, a module's name or a file's path."""
    distribution: str | None = None
    version: str | None = None

    @property
    def label(self) -> str:
        """How messages name it."""
        if self.distribution is None:
            return self.name
        return f"{self.name} ({self.distribution} {self.version or '?'})"

    def matches(self, pattern: str) -> bool:
        """Whether ``pattern`` (shell style, ``-`` and ``_`` alike) is this plugin's name or distribution."""
        names = (self.name, self.distribution or "")
        return any(fnmatchcase(_canonical(name), _canonical(pattern)) for name in names if name)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@frozen(kw_only=True)
class Settings:
    """Choices about plugins. Names are entry-point or distribution names, and may hold ``*``."""

    allow: tuple[str, ...] | None = None
    """Load only these; None loads all, an empty tuple none."""
    block: tuple[str, ...] = ()
    """Never load these; it wins over ``allow``."""
    prefer: tuple[str, ...] = ()
    """Who keeps a name that several claim; the earliest match wins."""
    strict: bool = False
    """Raise when a plugin fails."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the ``TRAMONTANE_*`` variables."""
        env = os.environ if environment is None else environment
        return cls(
            allow=_names(env[ALLOW]) if ALLOW in env else None,
            block=_names(env.get(BLOCK, "")),
            prefer=_names(env.get(PREFER, "")),
            strict=env.get(STRICT, "").lower() not in ("", "0", "false", "no", "off"),
        )

    def why_off(self, plugin: PluginId) -> str | None:
        """The reason not to load ``plugin``, if there is one."""
        if any(plugin.matches(pattern) for pattern in self.block):
            return f"turned off by {BLOCK}"
        if self.allow is not None and not any(plugin.matches(pattern) for pattern in self.allow):
            return f"not named in {ALLOW}"
        return None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)
