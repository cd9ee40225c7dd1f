# SPDX-License-Identifier: Apache-2.0
"""Which files belong to one model: ``q4k-0.uqff``, ``q4k-1.uqff`` ..., or what the report beside them lists.

A folder may hold one model in several types; they share configuration, tokenizer and residual tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from tramontane.checkpoint import Files
from tramontane.checkpoint.containment import contained
from tramontane.errors import CheckpointError
from tramontane_quant_uqff.names import REPORT, RESIDUAL, SUFFIX

_NUMBERED = re.compile(r"(.+)-(\d+)")
BITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "2": ("q2k", "afq2"),
        "3": ("q3k", "afq3"),
        "4": ("q4k", "afq4", "q4_0", "q4_1", "hqq4", "mxfp4"),
        "5": ("q5k", "q5_0", "q5_1"),
        "6": ("q6k", "afq6"),
        "8": ("q8_0", "afq8", "hqq8", "fp8", "f8q8"),
    }
)
"""What a plain number of bits stands for, the best first."""


def choose(names: Sequence[str], quant: str | None) -> Sequence[str]:
    """See :attr:`tramontane.records.LoaderSpec.choose`. The residual tensors are part of every model."""
    models = _models(names)
    if quant is None:
        found = next(iter(models.values())) if len(models) == 1 else ()
    else:
        wanted = quant.lower()
        types = BITS.get(wanted, (wanted,))
        found = next((files for one in types for stem, files in models.items() if _is_of_type(stem, one)), ())
    return [*found, *(name for name in names if found and name == RESIDUAL)]


def shards(path: Path, files: Files) -> list[Path]:
    """All files with layers of the model that ``path`` belongs to; of a folder, of the only model in it.

    Raises:
        CheckpointError: The folder holds no model or several, or the report is damaged or names files elsewhere.
    """
    folder = path if path.is_dir() else path.parent
    names = sorted(name for name in files.entries if name.endswith(SUFFIX) and "/" not in name)
    if path.is_dir():
        models = _models(names)
        if len(models) != 1:
            raise CheckpointError(
                f"{folder} has {len(models)} models as UQFF: {', '.join(list(models)[:20]) or 'none'}",
                hint="give one file's path, or the type of one of them with --quant",
            )
        found = next(iter(models.values()))
    else:
        listed = _listed(files, path.name)
        found = listed or next((group for group in _models(names).values() if path.name in group), [path.name])
    return [contained(folder, name) for name in found]


def label_of(path: Path) -> frozenset[str]:
    """Names of the type that a file's name says, in lower case: ``q4k``, ``q4_k`` and ``4``; none if it says none."""
    stem = _stem(path.name)[0]
    known = (*{one for types in BITS.values() for one in types},)
    found = {one for one in known if _is_of_type(stem, one)}
    found |= {f"{one[:-1]}_k" for one in found if re.fullmatch(r"q\dk", one)}
    return frozenset(found | {number for number, types in BITS.items() if found & set(types)})


def _listed(files: Files, name: str) -> list[str]:
    """The files that the report names together with this one."""
    report = files.json(REPORT) if REPORT in files else None
    outputs = (report or {}).get("outputs")
    for output in outputs if isinstance(outputs, list) else ():
        shards = output.get("shards") if isinstance(output, dict) else None
        if isinstance(shards, list) and all(isinstance(one, str) for one in shards) and name in shards:
            return shards
    return []


def _models(names: Sequence[str]) -> dict[str, list[str]]:
    """Stem -> files, the shards in order."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        if name.endswith(SUFFIX):
            stem, number = _stem(name)
            groups.setdefault(stem, []).append((number, name))
    return {stem: [name for _, name in sorted(files)] for stem, files in sorted(groups.items())}


def stem_of(name: str) -> str:
    """What the files of one model have in common: ``q4k`` of ``q4k-0.uqff``."""
    return _stem(name)[0]


def _stem(name: str) -> tuple[str, int]:
    stem = str(PurePosixPath(name).with_suffix(""))
    numbered = _NUMBERED.fullmatch(stem)
    return (numbered[1], int(numbered[2])) if numbered else (stem, 0)


def _is_of_type(stem: str, kind: str) -> bool:
    """``phi-3.5-q4k`` and ``q4_k`` are of the type ``q4k``."""
    plain = re.sub(r"(?<=\d)_(?=[k01]$)", "", stem.lower())
    return re.search(rf"(?:^|[._/-]){re.escape(kind.replace('_', ''))}$", plain) is not None
