# SPDX-License-Identifier: Apache-2.0
"""Writes everything in the repository that follows from ``plugins/``, or with ``--check`` says what is out of date.

Each plugin's ``pyproject.toml`` names the extras it belongs to (``[tool.tramontane] extras``). From that come the
extras of the core, ``requirements.txt``, ``requirements-dev.txt``, each plugin's LICENSE and version, and, from the
catalogs of an environment with every plugin, ``known_plugins.json``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("standard", "cuda", "tools", "adapters")


class Plugin:
    """One plugin's folder and what its pyproject.toml says."""

    def __init__(self, file: Path) -> None:
        content: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
        self.folder = file.parent
        self.name: str = content["project"]["name"]
        self.extras: list[str] = content["tool"]["tramontane"]["extras"]
        unknown = set(self.extras) - set(EXTRAS)
        if unknown:
            raise SystemExit(f"{file}: no extra of that name: {', '.join(sorted(unknown))}")

    @property
    def requirement(self) -> str:
        """The line of a requirement file."""
        return f"-e {self.folder.relative_to(ROOT).as_posix()}"


def plugins() -> list[Plugin]:
    """Every plugin of the repository, by name."""
    found = [Plugin(file) for file in ROOT.glob("plugins/*/*/pyproject.toml")]
    return sorted(found, key=lambda plugin: plugin.name)


def core_version() -> str:
    """The version that all packages share."""
    text = (ROOT / "core/tramontane/__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if match is None:
        raise SystemExit("core/tramontane/__init__.py has no __version__")
    return match[1]


def wanted() -> Iterator[tuple[Path, str]]:
    """Every generated file and what it should hold."""
    every, version = plugins(), core_version()
    yield ROOT / "pyproject.toml", _with_extras(every, version)
    yield ROOT / "requirements.txt", _requirements("tramontane[standard], from this checkout", "-e .", _standard(every))
    yield ROOT / "requirements-dev.txt", _requirements("every plugin and the tools", "-e .[dev]", every)
    yield ROOT / "core/tramontane/known_plugins.json", _known(every)
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    for plugin in every:
        yield plugin.folder / "LICENSE", licence
        text = (plugin.folder / "pyproject.toml").read_text(encoding="utf-8")
        yield plugin.folder / "pyproject.toml", re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', text, count=1)


def _standard(every: list[Plugin]) -> list[Plugin]:
    return [plugin for plugin in every if "standard" in plugin.extras]


def _requirements(what: str, core: str, some: list[Plugin]) -> str:
    lines = [f"# Written by scripts/sync_plugins.py: {what}.", core, *(plugin.requirement for plugin in some)]
    return "\n".join(lines) + "\n"


def _with_extras(every: list[Plugin], version: str) -> str:
    members = {extra: [p.name for p in every if extra in p.extras] for extra in EXTRAS}
    members["all"] = [p.name for p in every]
    lines = []
    for extra, names in members.items():
        pins = [f'    "{name}=={version}",' for name in names]
        lines += [f"{extra} = [", *pins, "]"] if pins else [f"{extra} = []"]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = "\n".join(["# begin: plugins", *lines, "# end: plugins"])
    return re.sub(r"# begin: plugins\n.*?# end: plugins", lambda _: block, text, flags=re.DOTALL)


def _known(every: list[Plugin]) -> str:
    """Kind -> key -> distribution, from the catalogs; every plugin of the repository must be installed and work."""
    from tramontane.plugins import Plugins, Settings, discovery
    from tramontane.plugins.known import FILE_ENDING

    names = {plugin.name for plugin in every}
    candidates = [found for found in discovery.installed() if found.id.distribution in names]
    loaded = Plugins.load(candidates, Settings(strict=True))
    missing = names - {report.id.distribution for report in loaded.reports}
    if missing:
        raise SystemExit(f"not installed in this environment: {', '.join(sorted(missing))}")
    table: dict[str, dict[str, str]] = {}
    for catalog in loaded.catalogs:
        keys = catalog.keys()
        for key in keys:
            owner = catalog.owner(key)
            if owner is None or owner.distribution is None:
                raise SystemExit("; ".join(map(str, catalog.conflicts())))
            table.setdefault(catalog.kind, {})[key] = owner.distribution
    for loader in loaded.catalogs.loaders:
        owner = loaded.catalogs.loaders.owner(loader.name)
        if owner is not None and owner.distribution is not None and owner.distribution in names:
            table.setdefault(FILE_ENDING, {}).update(dict.fromkeys(loader.extensions, owner.distribution))
    return json.dumps(table, indent=2, sort_keys=True) + "\n"


def main() -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if something is out of date")
    check = parser.parse_args().check
    stale = [(path, text) for path, text in wanted() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path, text in stale:
        print(f"{'out of date' if check else 'wrote'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and stale:
        print("run: python scripts/sync_plugins.py")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
