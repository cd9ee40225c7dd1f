# SPDX-License-Identifier: Apache-2.0
"""Writes a model as mistral.rs lays it out: numbered shards of layers, residual tensors, a report, and what is beside
them. Tensors are made one at a time; files appear under their names when all are whole."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tramontane import __version__
from tramontane.checkpoint.safetensors import read_header
from tramontane.errors import CheckpointError, PlanError
from tramontane.export import Export, WriteOptions
from tramontane.saved.files import Slot, TensorFile
from tramontane.saved.write import shards_of, write_beside
from tramontane_quant_uqff.files import stem_of
from tramontane_quant_uqff.names import REPORT, RESIDUAL, SUFFIX, VERSION_KEYS, WRITTEN
from tramontane_quant_uqff.outgoing import Layer, named, numbered

SHARD_BYTES = 10 * 2**30
"""Size from which a further file is begun."""
VERSIONS = ("1.2", "0.2")
"""Those that can be written."""
U32 = torch.uint32
METADATA = {"uqff.version": ".".join(map(str, WRITTEN)), "uqff.producer": "tramontane"}


def write_uqff(
    export: Export, path: Path, options: WriteOptions, *, shard_bytes: int = SHARD_BYTES
) -> tuple[Path, ...]:
    """Write a model; matrices keep the types they have. Returns the files with layers.

    Args:
        export: The model.
        path: ``DIR/NAME.uqff``: the files become ``DIR/NAME-0.uqff`` and so on. Further types may be written to the
            same folder under other names.
        options: The version, 1.2 or 0.2; a model is loaded in the types that it shall have.
        shard_bytes: Size of one file.

    Raises:
        PlanError: A matrix is in a type that the format does not have, or the version cannot hold the model.
        CheckpointError: The folder holds another kind of model, or cannot be written.
    """
    folder, stem = path.parent, path.stem
    if options.quant is not None:
        raise PlanError(
            f"UQFF is written in the types that the model has, which are not {options.quant}",
            hint="load the model with that type first",
        )
    old = options.check_version("UQFF", *VERSIONS) == VERSIONS[1]
    _check_folder(folder, stem, old=old)
    layers, others = numbered(export) if old else named(export)
    shards = _shards(stem, layers, shard_bytes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _unfinished(folder, [*shards, RESIDUAL]) as place:
            for name, group in shards.items():
                _write_shard(place[name], group, old=old)
            with TensorFile(place[RESIDUAL], {name: one.slot for name, one in others.items()}, METADATA) as file:
                for name, one in others.items():
                    file.put(name, one.make())
        _remove_old(folder, stem, len(shards))
        write_beside(export.files, folder, _config(export))
        if not old:
            _write_report(folder, stem, list(shards), layers)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
    return tuple(folder / name for name in shards)


def _shards(stem: str, layers: Sequence[Layer], limit: int) -> dict[str, list[Layer]]:
    """File name -> what is in it."""
    return {f"{stem}-{number}{SUFFIX}": group for number, group in enumerate(shards_of(layers, limit))}


def _write_shard(path: Path, layers: Sequence[Layer], *, old: bool) -> None:
    """One file; blobs say their version themselves."""
    said = {} if old else {key: torch.tensor(one, dtype=U32) for key, one in zip(VERSION_KEYS, WRITTEN, strict=True)}
    slots = {key: Slot(U32, ()) for key in said}
    for layer in layers:
        slots |= layer.slots
    with TensorFile(path, slots, {} if old else METADATA) as file:
        for key, value in said.items():
            file.put(key, value)
        for layer in layers:
            for field, tensor in layer.make().items():
                file.put(field, tensor)


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


def _check_folder(folder: Path, stem: str, *, old: bool) -> None:
    """Whether what lies in the folder may stay beside the new files: they share the residual tensors."""
    found = sorted(path.name for path in folder.glob("*.safetensors") if path.name != RESIDUAL)
    if found:
        raise CheckpointError(
            f"{folder} holds another model ({found[0]}), whose configuration would be replaced",
            hint="give a path in another folder; nothing was written",
        )
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        names = read_header(path).entries
        if stem_of(path.name) != stem and all(name.isdecimal() for name in names) is not old:
            raise CheckpointError(
                f"{folder} holds a model in another version of UQFF ({path.name}), which keeps other tensors apart",
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


def _write_report(folder: Path, stem: str, shards: Sequence[str], layers: Sequence[Layer]) -> None:
    """What mistral.rs's tools list of a folder. Other models in it stay listed."""
    counts = Counter(layer.label for layer in layers)
    output = {
        "quant": stem,
        "shards": list(shards),
        "layers": len(layers),
        "actual_counts": dict(sorted(counts.items())),
        "fallback_count": sum(bool(layer.lost) for layer in layers),
        "layer_details": [
            {"module": layer.name, "stored": layer.label, "shape": list(layer.shape)} for layer in layers
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
