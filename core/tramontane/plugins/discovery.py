# SPDX-License-Identifier: Apache-2.0
"""Finds plugins without importing them: installed entry points, module objects, single files.

``importlib.metadata`` is read distribution by distribution, so that one with damaged metadata is a line of the report
and not the end of the scan, and so that each entry keeps its distribution. stevedore's own scan is not used: its disk
cache misses what was installed in the last two minutes and forgets the distribution.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from attrs import field, frozen

from tramontane.plugins.settings import PluginId, _canonical

GROUP = "tramontane.plugins"
API_GROUP = "tramontane.plugin_api"
CORE = "tramontane"
_CORE_ENTRY = metadata.EntryPoint(name="core", value="tramontane.defaults", group=GROUP)


@frozen
class Candidate:
    """A plugin that may be loaded. Exactly one of ``entry``, ``module`` and ``path`` says what to load."""

    id: PluginId
    entry: metadata.EntryPoint | None = None
    distribution: metadata.Distribution | None = field(default=None, eq=False, repr=False)
    module: object | None = None
    path: Path | None = None
    trouble: str | None = None
    """Why it cannot even be tried, such as damaged metadata."""

    @property
    def is_core(self) -> bool:
        """Whether this is the core's own plugin, which no list turns off."""
        return self.id.distribution == CORE and self.id.name == _CORE_ENTRY.name

    @property
    def order(self) -> tuple[bool, str, str]:
        """Sort key: the core first, then by distribution and name."""
        return (not self.is_core, _canonical(self.id.distribution or ""), self.id.name)


def core() -> Candidate:
    """The core's own plugin; it is there even where the core runs from a path and was never installed."""
    from tramontane import __version__

    return Candidate(PluginId(_CORE_ENTRY.name, CORE, __version__), entry=_CORE_ENTRY)


def installed() -> list[Candidate]:
    """All entries of the group ``tramontane.plugins``, in a fixed order, the core's own first.

    A distribution that lies on the path twice (an editable install often does) counts once; the first wins. Two
    distributions with entries of the same name are two candidates.
    """
    found: list[Candidate] = [core()]
    seen: set[str] = {CORE}
    for distribution in metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
            if f"[{GROUP}]" not in text.replace(" ", ""):
                continue
            name = distribution.metadata["Name"]
            if _canonical(name) in seen:
                continue
            seen.add(_canonical(name))
            found.extend(_entries(name, distribution))
        except Exception as error:
            where = str(getattr(distribution, "_path", "a distribution"))
            reason = f"damaged metadata: {type(error).__name__}: {error}"
            found.append(Candidate(PluginId(Path(where).name), trouble=reason))
    return sorted(found, key=lambda candidate: candidate.order)


def _entries(name: str, distribution: metadata.Distribution) -> Iterator[Candidate]:
    for entry in distribution.entry_points.select(group=GROUP):
        yield Candidate(PluginId(entry.name, name, distribution.version), entry=entry, distribution=distribution)


def from_module(module: object) -> Candidate:
    """A plugin given as a module (or any object with hook implementations)."""
    name = getattr(module, "__name__", None) or type(module).__name__
    return Candidate(PluginId(str(name)), module=module)


def from_file(path: str | Path) -> Candidate:
    """A plugin that is one Python file. Its lazy strings name it by its stem: ``haiku.py`` is ``haiku:command``."""
    return Candidate(PluginId(str(path)), path=Path(path))
