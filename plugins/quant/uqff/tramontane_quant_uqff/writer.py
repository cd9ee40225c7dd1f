# SPDX-License-Identifier: Apache-2.0
"""Writes a model as mistral.rs lays it out: numbered shards of layers, residual tensors, a report, and what is beside
them. Tensors are made one at a time; files appear under their names when all are whole."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from tramontane import __version__
from tramontane.errors import CheckpointError, PlanError
from tramontane.export import Export, Outgoing, WriteOptions
from tramontane.load.design import weight_maps
from tramontane.saved.files import Slot, TensorFile
from tramontane.saved.write import shards_of, write_beside
from tramontane.schemes import Dense
from tramontane.weightmap import Stack
from tramontane_quant_uqff.names import REPORT, RESIDUAL, SUFFIX, VERSION_KEYS, WRITTEN
from tramontane_quant_uqff.packing import U32, Kind, Packed, packed_layer

_log = logging.getLogger(__name__)

SHARD_BYTES = 10 * 2**30
"""Size from which a further file is begun."""
KEPT = ("router",)
"""Uses of matrices that no reader looks for among the layers."""
METADATA = {"uqff.version": ".".join(map(str, WRITTEN)), "uqff.producer": "tramontane"}


def write_uqff(
    export: Export, path: Path, options: WriteOptions, *, shard_bytes: int = SHARD_BYTES
) -> tuple[Path, ...]:
    """Write a model; matrices keep the types they have. Returns the files with layers.

    Args:
        export: The model.
        path: ``DIR/NAME.uqff``: the files become ``DIR/NAME-0.uqff`` and so on. Further types may be written to the
            same folder under other names.
        options: Nothing in them: a model is loaded in the types that it shall have.
        shard_bytes: Size of one file.

    Raises:
        PlanError: A matrix is in a type that the format does not have.
        CheckpointError: The folder holds another kind of model, or cannot be written.
    """
    folder, stem = path.parent, path.stem
    if options.quant is not None:
        raise PlanError(
            f"UQFF is written in the types that the model has, which are not {options.quant}",
            hint="load the model with that type first",
        )
    _check_folder(folder)
    layers, others = _sorted(export)
    shards = _shards(stem, layers, shard_bytes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _unfinished(folder, [*shards, RESIDUAL]) as place:
            for name, group in shards.items():
                _write_shard(place[name], group)
            with TensorFile(place[RESIDUAL], {name: one[0] for name, one in others.items()}, METADATA) as file:
                for name, (_, tensor) in others.items():
                    file.put(name, tensor.dense())
        _remove_old(folder, stem, len(shards))
        write_beside(export.files, folder, _config(export))
        _write_report(folder, stem, list(shards), layers)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
    return tuple(folder / name for name in shards)


@frozen
class _Layer:
    """A module that is written among the layers: the packed weight, and the bias if there is one."""

    name: str
    shape: tuple[int, ...]
    weight: Packed
    bias: Outgoing | None
    bias_slot: Slot | None
    lost: str
    """The scheme that it has no form for; empty if it is stored in its own."""

    @property
    def slots(self) -> dict[str, Slot]:
        found = {f"{self.name}.{field}": slot for field, slot in self.weight.slots.items()}
        return found if self.bias_slot is None else {**found, f"{self.name}.bias": self.bias_slot}

    @property
    def nbytes(self) -> int:
        return sum(slot.nbytes for slot in self.slots.values())


def _sorted(export: Export) -> tuple[list[_Layer], dict[str, tuple[Slot, Outgoing]]]:
    """The layers by name, and the residual tensors."""
    usual = weight_maps(export.architecture, export.config)[0]
    names = evolve(usual, rules=[rule for rule in usual.rules if not isinstance(rule, Stack)])
    tensors = {tensor.name: tensor for tensor in export.outgoing(names)}
    matrices = {
        name.removesuffix(".weight"): tensor
        for name, tensor in sorted(tensors.items())
        if tensor.is_matrix and name.endswith(".weight") and not tensor.uses & frozenset(KEPT)
    }
    biases = {module: tensors.get(f"{module}.bias") for module in matrices}
    taken = {f"{module}.{field}" for module in matrices for field in ("weight", "bias")}
    others = {name: (_slot(tensor), tensor) for name, tensor in tensors.items() if name not in taken}
    layers = [_layer(module, tensor, biases[module]) for module, tensor in matrices.items()]
    _say_lost(layers)
    return layers, others


def _layer(module: str, tensor: Outgoing, bias: Outgoing | None) -> _Layer:
    packed, lost = packed_layer(tensor), ""
    if packed.kind is Kind.UNQUANT and not isinstance(tensor.scheme, Dense):
        lost = "parts of several types" if tensor.scheme is None else tensor.scheme.name
    return _Layer(module, tensor.shape, packed, bias, None if bias is None else _slot(bias), lost)


def _say_lost(layers: Sequence[_Layer]) -> None:
    """Matrices that the format cannot hold in their types become plain numbers; that is said once."""
    lost = Counter(f"{list(layer.shape)} in {layer.lost}" for layer in layers if layer.lost)
    if lost:
        listed = ", ".join(f"{count} x {what}" for what, count in lost.items())
        _log.warning("%d matrices have no form in UQFF and are written as numbers: %s", lost.total(), listed)


def _slot(tensor: Outgoing) -> Slot:
    value = tensor.dense()  # headers do not say what a value map makes of a type; these are small
    return Slot(value.dtype, tuple(value.shape))


def _shards(stem: str, layers: Sequence[_Layer], limit: int) -> dict[str, list[_Layer]]:
    """File name -> what is in it."""
    return {f"{stem}-{number}{SUFFIX}": group for number, group in enumerate(shards_of(layers, limit))}


def _write_shard(path: Path, layers: Sequence[_Layer]) -> None:
    import torch

    said = {key: torch.tensor(number, dtype=U32) for key, number in zip(VERSION_KEYS, WRITTEN, strict=True)}
    slots = {key: Slot(U32, ()) for key in said}
    for layer in layers:
        slots |= layer.slots
    with TensorFile(path, slots, METADATA) as file:
        for key, value in said.items():
            file.put(key, value)
        for layer in layers:
            for field, tensor in layer.weight.make().items():
                file.put(f"{layer.name}.{field}", tensor)
            if layer.bias is not None:
                file.put(f"{layer.name}.bias", layer.bias.dense())


@contextlib.contextmanager
def _unfinished(folder: Path, names: Sequence[str]) -> Iterator[Mapping[str, Path]]:
    """Where files are written until all of them are whole."""
    place = {name: folder / f".{name}.unfinished" for name in names}
    try:
        yield place
        for name, written in place.items():
            written.replace(folder / name)
    finally:
        for written in place.values():
            written.unlink(missing_ok=True)


def _check_folder(folder: Path) -> None:
    found = sorted(path.name for path in folder.glob("*.safetensors") if path.name != RESIDUAL)
    if found:
        raise CheckpointError(
            f"{folder} holds another model ({found[0]}), whose configuration would be replaced",
            hint="give a path in another folder; nothing was written",
        )


def _remove_old(folder: Path, stem: str, count: int) -> None:
    """Shards of an earlier model of the same name that this one does not have."""
    for path in folder.glob(f"*{SUFFIX}"):
        numbered = re.fullmatch(rf"{re.escape(stem)}-(\d+)", path.stem)
        if numbered and int(numbered[1]) >= count:
            path.unlink()


def _config(export: Export) -> dict[str, Any]:
    """The configuration as Hugging Face spells it, with the rope spelled in the way that mistral.rs reads too."""
    config = {key: value for key, value in export.config.items() if key != "quantization_config"}
    if not config.get("architectures"):
        config["architectures"] = [export.architecture.classes[0]]
    rope = config.get("rope_parameters")
    if isinstance(rope, Mapping) and "rope_theta" in rope:
        config.setdefault("rope_theta", rope["rope_theta"])
        if rope.get("rope_type", "default") != "default":
            config.setdefault("rope_scaling", {key: value for key, value in rope.items() if key != "rope_theta"})
    return config


def _write_report(folder: Path, stem: str, shards: Sequence[str], layers: Sequence[_Layer]) -> None:
    """What mistral.rs's tools list of a folder. Other models in it stay listed."""
    counts = Counter(layer.weight.label for layer in layers)
    output = {
        "quant": stem,
        "shards": list(shards),
        "layers": len(layers),
        "actual_counts": dict(sorted(counts.items())),
        "fallback_count": sum(bool(layer.lost) for layer in layers),
        "layer_details": [
            {"module": layer.name, "stored": layer.weight.label, "shape": list(layer.shape)} for layer in layers
        ],
    }
    outputs = [one for one in _listed(folder) if _still_there(one, folder, {stem, *shards})]
    content = {
        "schema": 1,
        "generated_by": {"tool": f"tramontane {__version__}"},
        "uqff_version": METADATA["uqff.version"],
        "outputs": [*outputs, output],
    }
    (folder / REPORT).write_text(json.dumps(content, indent=2), encoding="utf-8")


def _listed(folder: Path) -> list[Any]:
    try:
        outputs = json.loads((folder / REPORT).read_text(encoding="utf-8"))["outputs"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return outputs if isinstance(outputs, list) else []


def _still_there(output: Any, folder: Path, replaced: set[str]) -> bool:
    shards = output.get("shards") if isinstance(output, dict) else None
    if not isinstance(shards, list) or not all(isinstance(name, str) for name in shards):
        return False
    return (
        output.get("quant") not in replaced
        and not set(shards) & replaced
        and all((folder / name).is_file() for name in shards)
    )
