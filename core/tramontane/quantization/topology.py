# SPDX-License-Identifier: Apache-2.0
"""Topology files: which layers get which type and which device.

A YAML or TOML table. A key is a range of layers (``"0-8"``: 0 to 7), one layer (``"3"``) or a regular expression
between slashes that is searched for in the full name of a weight. A value has ``isq`` (or ``quant``) and ``device``. Of
several that match, the later one decides, each setting for itself.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from attrs import frozen

from tramontane.errors import ConfigError

KEEP = "none"
"""The type that leaves a weight as it is."""

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_DEVICE = re.compile(r"cpu|(?:cuda|mps|metal)(?:\[\d+\]|:\d+)?")
_NUMBER = re.compile(r"(?:^|\.)(\d+)(?=\.)")
_SETTINGS = {"isq": "quant", "quant": "quant", "device": "device"}


@frozen
class Rule:
    """One line: which weights, and what for them."""

    key: str
    layers: range | None
    pattern: re.Pattern[str] | None
    quant: str | None
    device: str | None

    def covers(self, path: str) -> bool:
        """Whether the rule is for the weight of a module."""
        if self.pattern is not None:
            return self.pattern.search(f"{path}.weight") is not None
        number = _NUMBER.search(path)
        return self.layers is not None and number is not None and int(number[1]) in self.layers


@frozen
class Topology:
    """All rules of a file, in its order."""

    source: str
    rules: tuple[Rule, ...]

    def quant(self, path: str) -> str | None:
        """The type for a module's weight; ``None`` where no rule says one."""
        return next((rule.quant for rule in reversed(self.rules) if rule.quant and rule.covers(path)), None)

    def device(self, path: str) -> tuple[str, str] | None:
        """The device for a module's weight, as torch spells it, and the key that says so."""
        found = next((rule for rule in reversed(self.rules) if rule.device and rule.covers(path)), None)
        return None if found is None or found.device is None else (found.device, found.key)

    def device_of_layer(self, number: int) -> str | None:
        """The device for a whole layer, by lines about layers; ``None`` where none says one."""
        rules = (rule for rule in reversed(self.rules) if rule.device and rule.layers is not None)
        return next((rule.device for rule in rules if rule.layers is not None and number in rule.layers), None)

    @property
    def quants(self) -> tuple[str, ...]:
        """Every type that a rule names."""
        return tuple(dict.fromkeys(rule.quant for rule in self.rules if rule.quant))


def read_topology(path: Path) -> Topology:
    """Read a topology file; ``.toml`` is TOML, anything else YAML.

    Raises:
        ConfigError: It cannot be read, or a line is wrong; its key is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the topology {path}: {error}") from error
    if not isinstance(content, Mapping) or not content:
        raise ConfigError(f"the topology {path} is not a table of layers", hint='such as  "0-8": {isq: q4k}')
    return Topology(str(path), tuple(_rule(path, str(key), value) for key, value in content.items()))


def _rule(path: Path, key: str, value: Any) -> Rule:
    where = f"the topology {path}, key {key!r}"
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"{where}: there must be isq or device below it, got {value!r}")
    unknown = [str(name) for name in value if name not in _SETTINGS]
    if unknown:
        raise ConfigError(f"{where}: unknown setting {', '.join(unknown)}", hint="known are isq (or quant) and device")
    if "isq" in value and "quant" in value:
        raise ConfigError(f"{where}: isq and quant are two names of one setting; give one")
    settings = {_SETTINGS[name]: str(given).lower() for name, given in value.items() if given is not None}
    device = settings.get("device")
    if device is not None:
        if not _DEVICE.fullmatch(device):
            raise ConfigError(f"{where}: there is no device {device!r}", hint="cpu, cuda, cuda[1], metal ...")
        device = device.replace("[", ":").replace("]", "").replace("metal", "mps")
    layers, pattern = _covered(where, key)
    return Rule(key, layers, pattern, settings.get("quant"), device)


def _covered(where: str, key: str) -> tuple[range | None, re.Pattern[str] | None]:
    if len(key) > 2 and key[0] == key[-1] == "/":
        try:
            return None, re.compile(key[1:-1])
        except re.error as error:
            raise ConfigError(f"{where}: not a regular expression: {error}") from error
    match = _RANGE.fullmatch(key)
    if match is None:
        raise ConfigError(f"{where}: not a range such as 0-8, a layer such as 3, or a /regular expression/")
    first = int(match[1])
    last = first + 1 if match[2] is None else int(match[2])
    if last <= first:
        raise ConfigError(f"{where}: the range is empty; the end is exclusive")
    return range(first, last), None
