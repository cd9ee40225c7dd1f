# SPDX-License-Identifier: Apache-2.0
"""Which of a repository's files hold the model, in the type that the user asked for.

Publishers name files after the type: ``model-Q4_K_M.gguf``, ``model-UD-Q4_K_XL-00001-of-00002.gguf``,
``Q8_0/model.gguf``. Files that are no language model (projectors of images, importances, drafters) are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from types import MappingProxyType

from attrs import frozen

_PART = re.compile(r"-(\d{5})-of-(\d{5})$")
_LABEL = re.compile(r"(?:^|[._/-])((?:(?:I?Q|TQ)\d\w*?|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32))(?=$|[./-])", re.I)
_OTHERS = re.compile(r"(?:^|[._/-])(mmproj|imatrix|mtp|draft|vocab)(?:$|[._/-])", re.I)
_SPELLED = {"fp16": "f16", "fp32": "f32", "mxfp4_moe": "mxfp4"}
SIZES = ("m", "s", "l", "xl")
"""Endings of the mixtures of K-quants, the best first."""
BITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "2": ("q2_k", "q2_k_l", "q2_k_xl", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs"),
        "3": ("q3_k_m", "q3_k_l", "q3_k_s", "q3_k_xl", "iq3_m", "iq3_s", "iq3_xs", "iq3_xxs"),
        "4": ("q4_k_m", "q4_k_s", "q4_k_l", "q4_k_xl", "q4_0", "iq4_xs", "iq4_nl", "q4_1", "mxfp4"),
        "5": ("q5_k_m", "q5_k_s", "q5_k_l", "q5_k_xl", "q5_0", "q5_1"),
        "6": ("q6_k", "q6_k_l", "q6_k_xl"),
        "8": ("q8_0", "q8_k_xl"),
    }
)
"""What a plain number of bits stands for, the best first."""


@frozen
class Model:
    """The files of one model, in order, and the type that their names say (empty if none)."""

    files: tuple[str, ...]
    label: str


def choose(names: Sequence[str], quant: str | None) -> Sequence[str]:
    """See :attr:`tramontane.records.LoaderSpec.choose`."""
    models = _models(names)
    if quant is None:
        return models[0].files if len(models) == 1 else ()
    for label in wanted_labels(quant):
        found = [model for model in models if model.label == label]
        if found:
            return min(found, key=lambda model: (len(model.files[0]), model.files[0])).files
    return ()


def wanted_labels(quant: str) -> tuple[str, ...]:
    """Types that would do for what the user asked for, the best first."""
    text = _SPELLED.get(quant.lower(), quant.lower()).replace("-", "_")
    if text in BITS:
        return BITS[text]
    plain = re.fullmatch(r"q([2-6])_?k", text)
    if plain is not None:
        name = f"q{plain[1]}_k"
        return (name, *(f"{name}_{size}" for size in SIZES))
    compact = re.fullmatch(r"q([458])_?([01])", text)
    return (text if compact is None else f"q{compact[1]}_{compact[2]}",)


def label_of(name: str) -> str:
    """The type that a file's name or folder says, in lower case; empty if it says none."""
    stem = _PART.sub("", str(PurePosixPath(name).with_suffix("")))
    found = _LABEL.findall(stem)
    return _SPELLED.get(found[-1].lower(), found[-1].lower()) if found else ""


def _models(names: Iterable[str]) -> list[Model]:
    """All models among the files; those that lack a part are left out."""
    groups: dict[tuple[str, int], list[str]] = {}
    for name in sorted(names):
        path = PurePosixPath(name)
        if path.suffix.lower() != ".gguf" or _OTHERS.search(path.stem):
            continue
        part = _PART.search(path.stem)
        base = str(path.with_name(_PART.sub("", path.stem)))
        groups.setdefault((base, int(part[2]) if part else 1), []).append(name)
    whole = [(base, files) for (base, count), files in groups.items() if len(files) == count]
    return [Model(tuple(files), label_of(f"{base}.gguf")) for base, files in whole]
