# SPDX-License-Identifier: Apache-2.0
"""What the kit runs on: the plugins of the distributions that ``--tramontane-target`` names."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from attrs import frozen
from packaging.utils import canonicalize_name

from tramontane.plugins import PluginReport, Plugins, installed
from tramontane.records import ArchitectureSpec, Record

ASK = "name a distribution with --tramontane-target"


@frozen
class Target:
    """One distribution under test."""

    distribution: str
    plugins: Plugins
    exceptions: Mapping[str, str]
    """Pattern of a test's id -> why it may fail."""

    @property
    def reports(self) -> list[PluginReport]:
        """What became of its plugins."""
        return [row for row in self.plugins.reports if _same(row.id.distribution, self.distribution)]

    @property
    def records(self) -> list[Record]:
        """What its plugins offer."""
        mine = (one for one in self.plugins.loaded if _same(one.id.distribution, self.distribution))
        return [record for loaded in mine for record in loaded.records]

    def parameter(self, *values: Any, id: str) -> Any:  # noqa: A002 (pytest's word)
        """A parameter set of a test, expected to fail where an exception says so."""
        reasons = [why for pattern, why in self.exceptions.items() if fnmatchcase(id, pattern)]
        return pytest.param(*values, id=id, marks=[pytest.mark.xfail(strict=True, reason=why) for why in reasons])


def _same(one: str | None, other: str) -> bool:
    return one is not None and canonicalize_name(one) == canonicalize_name(other)


def targets(config: pytest.Config) -> list[Target]:
    """The distributions that the command line names."""
    return [Target(name, installed(), exceptions_of(name)) for name in config.getoption("--tramontane-target")]


def architectures(config: pytest.Config) -> Iterator[tuple[Target, ArchitectureSpec, str, Mapping[str, Any]]]:
    """Every sample of every architecture under test: target, record, name of the sample, content of its config."""
    for target in targets(config):
        for record in target.records:
            if isinstance(record, ArchitectureSpec) and record.samples is not None:
                for name, content in record.load("samples")().items():
                    yield target, record, name, content


def exceptions_of(name: str) -> Mapping[str, str]:
    """What the plugin's ``pyproject.toml`` excuses: found beside an editable install, or in the working directory."""
    for folder in _folders(name):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        if _same(content.get("project", {}).get("name"), name):
            kit = content.get("tool", {}).get("tramontane", {}).get("conformance", {})
            return {str(key): str(why) for key, why in kit.get("exceptions", {}).items()}
    return {}


def _folders(name: str) -> Iterator[Path]:
    try:
        found: Distribution = distribution(name)
    except PackageNotFoundError as error:
        raise pytest.UsageError(f"--tramontane-target: {name} is not installed") from error
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    url = urlsplit(origin.get("url", ""))
    if url.scheme == "file" and origin.get("dir_info", {}).get("editable"):
        yield Path(unquote(url.path))
    yield Path.cwd()
