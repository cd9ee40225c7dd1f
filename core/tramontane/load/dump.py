# SPDX-License-Identifier: Apache-2.0
"""What ``-vv`` tells of a model that is loaded: every tensor's name, type and shape, as stored and as kept."""

from __future__ import annotations

import logging

from tramontane.build.plan import ModelPlan
from tramontane.checkpoint import Checkpoint

_log = logging.getLogger(__name__)


def dump_stored(checkpoint: Checkpoint) -> None:
    """Log the tensors of a checkpoint, under the names that its files give them."""
    if not _log.isEnabledFor(logging.DEBUG):
        return
    for name, ref in sorted(checkpoint.tensors.items()):
        kind = f"= {ref.alias_of}" if ref.alias_of is not None else ref.encoding or _plain(ref.dtype)
        _log.debug("stored %s: %s %s, %d bytes", name, kind, list(ref.shape), ref.nbytes)


def dump_kept(plan: ModelPlan) -> None:
    """Log the weights of a model, under the names of its modules; a matrix by its parts, whose schemes may differ."""
    if not _log.isEnabledFor(logging.DEBUG):
        return
    for weight in plan.weights:
        for part in weight.parts:
            where = part.path if part.path == weight.path else f"{part.path} (in {weight.path})"
            _log.debug("kept %s: %s %s, %d bytes", where, part.scheme, list(part.shape), part.nbytes)
    for param in plan.params:
        _log.debug("kept %s: %s %s, %d bytes", param.path, _plain(param.dtype), list(param.shape), param.nbytes)


def _plain(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")
