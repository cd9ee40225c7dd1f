# SPDX-License-Identifier: Apache-2.0
"""Says, before anything of a plugin is imported, why it cannot work here: its contract's version, its requirements.

A plugin states the contract it was written for by an entry point whose name is the number::

    [project.entry-points."tramontane.plugin_api"]
    1 = "my_plugin.plugin"

Without one it is taken to be written for the first.

Every start of every command comes by here, so that plain requirements (``name>=1.2``) are compared as they stand, and
what reads all others is imported for them alone.
"""

from __future__ import annotations

import re
from importlib import metadata

import tramontane
from tramontane.plugins.discovery import API_GROUP, CORE, Candidate

_FIRST_API = 1
_PLAIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*>=\s*(\d+(?:\.\d+)*)")
_RELEASE = re.compile(r"\d+(?:\.\d+)*")


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
    for text in _fields(distribution, "Requires-Dist") or distribution.requires or []:
        reason = None if _plainly_met(text) else _unmet(text)
        if reason is not None:
            return reason
    return None


def _plainly_met(text: str) -> bool:
    """Whether a least version is asked for that is clearly there, wherever it is needed; if not, the whole grammar
    decides."""
    plain = _PLAIN.fullmatch(text.split(";")[0].strip())
    have = None if plain is None else _version(plain[1])
    if plain is None or have is None or _RELEASE.fullmatch(have) is None:
        return False
    found, least = ([int(part) for part in each.split(".")] for each in (have, plain[2]))
    length = max(len(found), len(least))
    return [*found, *[0] * (length - len(found))] >= [*least, *[0] * (length - len(least))]


def _unmet(text: str) -> str | None:
    """Why a requirement is not met, if it is not."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return f"states a requirement that cannot be read: {text!r}"
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    have = _version(requirement.name)
    if have is None:
        return f'needs {requirement}, which is not installed; try `pip install "{requirement}"`'
    if not requirement.specifier.contains(have, prereleases=True):
        return f'needs {requirement}, this is {have}; try `pip install -U "{requirement}"`'
    return None


def _version(name: str) -> str | None:
    if re.sub(r"[-_.]+", "-", name).lower() == CORE:
        return tramontane.__version__
    try:
        return next(iter(_fields(metadata.distribution(name), "Version")), None)
    except metadata.PackageNotFoundError:
        return None


def _fields(distribution: metadata.Distribution, name: str) -> list[str]:
    """The values of one field of a distribution's metadata: its header is lines ``Name: value`` up to an empty one."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    header = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
    return re.findall(rf"^{name}:[ \t]*(.*?)\s*$", header, re.MULTILINE)
