# SPDX-License-Identifier: Apache-2.0
"""Whether a file about to be written would be read as the same model.

A format may have no words for something: a window, a cap, another activation. Comparing configurations would not tell,
since they spell one thing in many ways; so the model that a reader would build is built on paper, by whoever would read
the file, and its ops, weights, caches and tables are compared.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import zip_longest

import attrs
import torch

from tramontane.build import Blueprint, Builder
from tramontane.checkpoint import Checkpoint
from tramontane.config import read_config
from tramontane.errors import CheckpointError
from tramontane.export.model import Export
from tramontane.load.find import find_architecture
from tramontane.load.foreign import translated
from tramontane.load.options import LoadOptions
from tramontane.ops import BoundOp, Runtime, TakeRows

_log = logging.getLogger(__name__)
MAX_NAMED = 12
POSITIONS = 1024
"""Positions for which tables are compared; rounding grows with the position."""


def check_same_model(export: Export, checkpoint: Checkpoint, *, form: str, changed: bool) -> None:
    """Refuse to write what would be read as another model.

    Args:
        export: The model.
        checkpoint: What the file will say; tensors need names and shapes only.
        form: Names the format in messages.
        changed: Warn instead of refusing.

    Raises:
        CheckpointError: Something differs; names what.
    """
    there = _on_paper(export, checkpoint)
    found = [*_ops(export.blueprint, there), *_weights(export.blueprint, there), *_tables(export.blueprint, there)]
    if not found:
        return
    shown = "\n  ".join(found[:MAX_NAMED]) + (
        f"\n  and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    )
    message = f"{form} cannot say everything about this model; read back, it would differ:\n  {shown}"
    if not changed:
        raise CheckpointError(message, hint="another format may fit; to write it all the same, ask for a changed model")
    _log.warning("%s", message)


def _on_paper(export: Export, checkpoint: Checkpoint) -> Blueprint:
    """The model as whoever reads the file would build it."""
    options, like = LoadOptions(), export.blueprint
    read = translated(checkpoint, options, export.plugins)
    spec = find_architecture(read, options, export.plugins)
    made = Blueprint(Runtime(like.runtime.device), like.dtype, like.cache_dtype, like.max_positions)
    spec.load("model")(read_config(spec.load("config"), read.config, "the file to be written"), Builder(made))
    return made


def _ops(here: Blueprint, there: Blueprint) -> Iterator[str]:
    """Ops that differ in their parameters, or that only one of the two has."""

    def listed(blueprint: Blueprint) -> list[BoundOp]:
        return [bound for bound in blueprint.ops if not isinstance(bound.op, TakeRows)]

    for ours, theirs in zip_longest(listed(here), listed(there)):
        if ours is None or theirs is None or (ours.path, type(ours.op)) != (theirs.path, type(theirs.op)):
            names = ("nothing" if one is None else f"{one.path} ({one.op.name})" for one in (ours, theirs))
            yield " would be ".join(names)
            return  # what follows is out of step
        for field in attrs.fields(type(ours.op)):
            before, after = getattr(ours.op, field.name), getattr(theirs.op, field.name)
            if before != after and not _close(before, after):
                yield f"{ours.path} ({ours.op.name}): {field.name} {before} would be {after}"


def _close(before: object, after: object) -> bool:
    """Numbers that went through float32."""
    return isinstance(before, float) and isinstance(after, float) and abs(before - after) <= 1e-6 * abs(before)


def _weights(here: Blueprint, there: Blueprint) -> Iterator[str]:
    """Weights that only one of the two has, or that differ in shape or in what is added to them."""
    shapes = [
        {name: (*matrix.shape, matrix.parts) for name, matrix in blueprint.matrices.items()}
        | {name: (*param.shape, param.offset) for name, param in blueprint.params.items()}
        for blueprint in (here, there)
    ]
    for name in dict.fromkeys((*shapes[0], *shapes[1])):
        if shapes[0].get(name) != shapes[1].get(name):
            yield f"the weight {name} would be another"


def _tables(here: Blueprint, there: Blueprint) -> Iterator[str]:
    """Computed tables that differ: frequencies of positions."""
    for ours, theirs in zip_longest(here.constants.values(), there.constants.values()):
        if ours is None or theirs is None:
            yield "there would be another number of rope tables"
            return
        before, after = ours.make()[:POSITIONS], theirs.make()[:POSITIONS]
        if before.shape != after.shape or not torch.allclose(before, after, atol=1e-3):
            yield "positions would turn heads by other angles"
