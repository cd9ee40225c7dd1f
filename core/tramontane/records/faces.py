# SPDX-License-Identifier: Apache-2.0
"""Records about what people and programs meet: frontends, commands, tools, health checks."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from attrs import frozen

from tramontane.errors import PluginError
from tramontane.records.base import Record, lazy, optional_lazy, sentence


@frozen(kw_only=True)
class FrontendSpec(Record):
    """A face of the host: an ASGI application on the common port, or a program with its own loop."""

    kind: ClassVar[str] = "frontend"

    app: str | None = optional_lazy()
    """``make_app(host) -> ASGI application``."""
    mount: str | None = None
    """The path under which ``app`` is mounted, such as ``/v1``."""
    also: tuple[str, ...] = ()
    """Exact paths of the port, outside the mount, that are ``app``'s as well, such as ``/tokenize``."""
    openapi: str | None = optional_lazy()
    """``describe() -> dict``: the ``paths``, and what else of an OpenAPI document belongs to ``app``; paths include the
    mount."""
    keyless: str | None = optional_lazy()
    """``paths() -> Iterable[str]``: exact paths below the mount that are only read and hold no secret, such as those of
    a page that asks for an API key; they are open where all else needs a key."""
    run: str | None = optional_lazy()
    """``run(host, options) -> None``: owns its loop, such as a terminal."""

    def __attrs_post_init__(self) -> None:
        if (self.app is None) == (self.run is None):
            raise PluginError(f"FrontendSpec {self.name!r}: give either app and mount, or run")
        if (self.app is None) != (self.mount is None) or (self.mount is not None and not self.mount.startswith("/")):
            raise PluginError(f"FrontendSpec {self.name!r}: app goes with a mount that begins with '/'")
        if self.also and (self.app is None or not all(path.startswith("/") for path in self.also)):
            raise PluginError(f"FrontendSpec {self.name!r}: also names paths of app, and they begin with '/'")


@frozen(kw_only=True)
class CommandSpec(Record):
    """A sub-command of ``tramontane``."""

    kind: ClassVar[str] = "command"

    command: str = lazy()
    """Lazy ``click.Command``."""
    help: str = sentence()
    """One line for ``tramontane --help``, which imports no command."""
    hidden: bool = False
    """Leave it out of ``--help``."""


@frozen(kw_only=True)
class ToolProviderSpec(Record):
    """Brings tools that a model may call."""

    kind: ClassVar[str] = "tool provider"

    provider: str = lazy()
    """``make(options) -> ToolProvider``."""


class HealthStatus(StrEnum):
    """How a health check went. ``WARN``: it works, but worse than it could; ``FAIL``: something does not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@frozen(kw_only=True)
class Health:
    """One line of ``tramontane doctor``."""

    title: str
    """What was looked at: ``torch``, ``disk of the model cache`` ..."""
    status: HealthStatus
    message: str
    """What was found, with figures."""
    hint: str | None = None
    """What to do where the status is not ``ok``."""


@frozen(kw_only=True)
class HealthCheck(Record):
    """A check of ``tramontane doctor``."""

    kind: ClassVar[str] = "health check"

    check: str = lazy()
    """``check(plugins) -> Iterable[Health]``; ``plugins`` is the loaded :class:`tramontane.plugins.Plugins`."""
