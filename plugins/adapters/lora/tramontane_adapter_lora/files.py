# SPDX-License-Identifier: Apache-2.0
"""Opening what PEFT saves: ``adapter_config.json`` beside ``adapter_model.safetensors``.

Tensors are called ``base_model.model.<module>.lora_A.weight`` [R, I] and ``.lora_B.weight`` [O, R]. A name of the
adapter between (``lora_A.default.weight``) is what unfinished saves have, and means the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import define, field

from tramontane.adapters import Adapter, LowRank
from tramontane.checkpoint import Files, MappedTensor, OpenOptions, open_tensors
from tramontane.checkpoint.containment import contained
from tramontane.errors import AdapterError, TramontaneError, UnsafeFormatError
from tramontane_adapter_lora.settings import PeftSettings, read_settings

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
MAX_RANK = 4096
MAX_NAMED = 8
_NAME = re.compile(r"(?:base_model\.model\.)?(?P<module>.+?)\.lora_(?P<side>[AB])(?:\.[^.]+)?\.weight")
_OTHERS = {
    "lora_embedding_": "token embeddings",
    "lora_magnitude_vector": "DoRA's magnitudes",
    ".bias": "biases",
}
"""Part of a tensor's name -> what it is; such adapters are refused."""


def detect(path: Path) -> bool:
    """Whether PEFT wrote this: a folder with its configuration, or the file with the weights beside it. A kind of
    adapter that is not LoRA is taken too, to be refused by name; X-LoRA is not, which has a kind of its own."""
    folder = path if path.is_dir() else path.parent
    if not (folder / CONFIG).is_file():
        return path.name in (WEIGHTS, PICKLE) or any((folder / name).is_file() for name in (WEIGHTS, PICKLE))
    try:
        config = Files.in_directory(folder).json(CONFIG) or {}
    except TramontaneError:
        return True  # opening it says what is wrong
    return "peft_type" in config and config["peft_type"] != "XLORA"


def open_adapter(path: Path, options: OpenOptions) -> Adapter:
    """Open an adapter's folder. Reads names, shapes and settings.

    Raises:
        AdapterError: Files are missing, damaged, or hold what is not supported.
        ConfigError: The configuration has missing or wrong keys.
        UnsafeFormatError: The weights exist as pickle only, which is never loaded.
        CheckpointError: The weight file is damaged or hostile.
    """
    folder = path if path.is_dir() else path.parent
    files = Files.in_directory(folder)
    config = files.json(CONFIG)
    if config is None:
        raise AdapterError(
            f"{folder} has no {CONFIG}, so the adapter's scale is unknown",
            hint="give the whole folder that PEFT's save_pretrained wrote",
        )
    settings = read_settings(config, str(folder / CONFIG))
    weights = contained(folder, WEIGHTS)
    if not weights.is_file():
        raise _without_weights(folder)
    tensors, _, mapped = open_tensors(weights)
    try:
        deltas = _Pairs(settings, str(weights)).of(tensors)
    except BaseException:
        mapped.close()
        raise
    return Adapter(
        kind="lora", path=folder, deltas=deltas, base=settings.base_model_name_or_path, on_close=(mapped.close,)
    )


def _without_weights(folder: Path) -> AdapterError | UnsafeFormatError:
    if (folder / PICKLE).is_file():
        return UnsafeFormatError(
            f"{folder} has its weights as pickle only ({PICKLE}), and a pickle can run code when loaded",
            hint="save it again with a current version of PEFT, which writes safetensors",
        )
    held = ", ".join(sorted(entry.name for entry in folder.iterdir())[:MAX_NAMED])
    return AdapterError(f"{folder} has no {WEIGHTS}; it has {held}", hint="an interrupted download can be run again")


@define(eq=False)
class _Pairs:
    """The pairs of one file, and everything that is wrong with it."""

    settings: PeftSettings
    where: str
    sides: dict[str, dict[str, MappedTensor]] = field(factory=dict, init=False)
    """Module -> side -> tensor."""
    others: dict[str, list[str]] = field(factory=dict, init=False)
    """What cannot be served -> tensors."""
    wrong: list[str] = field(factory=list, init=False)

    def of(self, tensors: Iterable[MappedTensor]) -> dict[str, LowRank]:
        """Module -> pair.

        Raises:
            AdapterError: Something is wrong; all kinds of fault are told.
        """
        for tensor in tensors:
            self._sort(tensor)
        found = {module: pair for module in self.sides if (pair := self._pair(module)) is not None}
        lines = list(self._faults())
        if lines:
            raise AdapterError(
                f"{self.where} cannot be used:\n  " + "\n  ".join(lines),
                hint="docs/adapters.md says what is supported; a damaged file has to be fetched or saved again",
            )
        return found

    def _sort(self, tensor: MappedTensor) -> None:
        named = _NAME.fullmatch(tensor.name)
        if named is None:
            kind = next((kind for part, kind in _OTHERS.items() if part in tensor.name), "whole weights")
            self.others.setdefault(kind, []).append(tensor.name)
            return
        sides = self.sides.setdefault(named["module"], {})
        if named["side"] in sides:
            self.wrong.append(f"{named['module']} has two tensors lora_{named['side']}")
        sides[named["side"]] = tensor

    def _pair(self, module: str) -> LowRank | None:
        sides = self.sides[module]
        missing = [side for side in "AB" if side not in sides]
        if missing:
            self.wrong.append(f"{module} has no lora_{missing[0]}")
            return None
        down, up = sides["A"], sides["B"]
        fault = self._fault(module, down, up)
        if fault is not None:
            self.wrong.append(f"{module}: {fault}")
            return None
        return LowRank(down=down, up=up, scale=self.settings.scale(module))

    def _fault(self, module: str, down: MappedTensor, up: MappedTensor) -> str | None:
        if not (down.dtype.is_floating_point and up.dtype.is_floating_point):
            return f"its tensors are {down.dtype} and {up.dtype}, no floating-point numbers"
        if len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != up.shape[1]:
            return f"lora_A {list(down.shape)} and lora_B {list(up.shape)} are no pair [R, I] and [O, R]"
        rank, said = down.shape[0], self.settings.rank(module)
        if rank != said:
            return f"its rank is {rank}, and {CONFIG} says {said}"
        return f"its rank is {rank}, above {MAX_RANK}" if rank > MAX_RANK else None

    def _faults(self) -> Iterator[str]:
        for kind, names in self.others.items():
            yield f"{len(names)} tensors hold {kind}, which adapters cannot change here: {_few(names)}"
        if self.wrong:
            yield f"{len(self.wrong)} modules are broken: {_few(self.wrong)}"
        if not self.sides and not self.others:
            yield "it holds no tensors"


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED])
    return shown if len(names) <= MAX_NAMED else f"{shown} and {len(names) - MAX_NAMED} more"
