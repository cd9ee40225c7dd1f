# SPDX-License-Identifier: Apache-2.0
"""Says, before anything of a plugin is imported, why it cannot work here: its contract's version, its requirements.

A plugin states the contract it was written for by an entry point whose name is the number::

    [project.entry-points."tramontane.plugin_api"]
    1 = "my_plugin.plugin"

Without one it is taken to be written for the first.
"""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

import tramontane
from tramontane.plugins.discovery import API_GROUP, CORE, Candidate

_FIRST_API = 1


def accepts(version: int, current: int) -> bool:
    """Whether this core, at ``current``, accepts something written for ``version``: the same or the one before."""
    return max(_FIRST_API, current - 1) <= version <= current


def accepted(current: int) -> str:
    """The accepted versions in words."""
    oldest = max(_FIRST_API, current - 1)
    return str(current) if oldest == current else f"{oldest} and {current}"


def incompatibility(candidate: Candidate) -> str | None:
    """The reason not to import ``candidate``, if there is one."""
    if candidate.entry is None or candidate.distribution is None:
        return None
    return _api_reason(candidate.entry, candidate.distribution) or _requirement_reason(candidate.distribution)


def _api_reason(entry: metadata.EntryPoint, distribution: metadata.Distribution) -> str | None:
    stated = [e.name for e in distribution.entry_points.select(group=API_GROUP) if e.value == entry.value]
    for text in stated or [str(_FIRST_API)]:
        if not text.isdecimal():
            return f"states the plugin API {text!r}, which is not a number"
        if not accepts(int(text), tramontane.PLUGIN_API):
            newer = int(text) > tramontane.PLUGIN_API
            remedy = "pip install -U tramontane" if newer else f"pip install -U {distribution.metadata['Name']}"
            return f"written for plugin API {text}, this core accepts {accepted(tramontane.PLUGIN_API)}; try `{remedy}`"
    return None


def _requirement_reason(distribution: metadata.Distribution) -> str | None:
    for text in distribution.requires or []:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            return f"states a requirement that cannot be read: {text!r}"
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        have = _version(canonicalize_name(requirement.name))
        if have is None:
            return f'needs {requirement}, which is not installed; try `pip install "{requirement}"`'
        if not requirement.specifier.contains(have, prereleases=True):
            return f'needs {requirement}, this is {have}; try `pip install -U "{requirement}"`'
    return None


def _version(name: str) -> str | None:
    if name == CORE:
        return tramontane.__version__
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
