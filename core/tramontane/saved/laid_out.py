# SPDX-License-Identifier: Apache-2.0
"""Weights as a backend laid them out, in one file beside others: the next start maps them.

What is mapped need not be read, quantized or repacked, takes no memory of the process's own, and is shared by all
processes that map it. The file's name tells everything that its bytes depend on, so a stale one is never opened.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field
from torch import Tensor

from tramontane.build.blueprint import Blueprint
from tramontane.build.plan import ModelPlan
from tramontane.checkpoint import MappedTensor, open_tensors
from tramontane.errors import CheckpointError
from tramontane.saved.files import Slot, TensorFile
from tramontane.weights import LaidOut, Stored

_log = logging.getLogger(__name__)


@define(eq=False)
class LaidOutWeights:
    """One model's file, which may not be there yet."""

    path: Path
    _found: dict[str, dict[str, MappedTensor]] | None = field(default=None, init=False, repr=False)
    """Part of a matrix -> its tensors; ``None`` without a file."""

    def __attrs_post_init__(self) -> None:
        if not self.path.exists():
            return
        try:
            tensors, _, _ = open_tensors(self.path)
        except CheckpointError as error:
            _log.warning("%s is damaged and will be written anew: %s", self.path, error)
            return
        self._found = {}
        for tensor in tensors:
            part, _, name = tensor.name.rpartition("/")
            self._found.setdefault(part, {})[name] = tensor

    @property
    def exists(self) -> bool:
        """Whether a file was found."""
        return self._found is not None

    def restore(self, stored: Stored, path: str, part: int) -> bool:
        """Give a part its memory from the file; false where the file holds nothing for it.

        Raises:
            CheckpointError: What the file holds does not fit.
        """
        found = None if self._found is None else self._found.get(f"{path}/{part}")
        if found is None or not isinstance(stored, LaidOut):
            return False
        stored.adopt(part, {name: tensor.read() for name, tensor in found.items()})
        return True

    def keep(self, plan: ModelPlan, blueprint: Blueprint) -> None:
        """Write the file. What goes wrong is said and harms nothing: the weights are in memory already."""
        unfinished = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            slots = {name: Slot(tensor.dtype, tuple(tensor.shape)) for name, tensor in _tensors(plan, blueprint)}
            with TensorFile(unfinished, slots) as file:
                for name, tensor in _tensors(plan, blueprint):
                    file.put(name, tensor)
            unfinished.replace(self.path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            _log.warning("the weights' layout cannot be kept in %s: %s", self.path, error.strerror or error)


def _tensors(plan: ModelPlan, blueprint: Blueprint) -> Iterator[tuple[str, Tensor]]:
    for weight in plan.weights:
        stored = blueprint.matrices[weight.path].storage()
        if isinstance(stored, LaidOut):
            for part in range(len(weight.parts)):
                for name, tensor in stored.laid_out(part).items():
                    yield f"{weight.path}/{part}/{name}", tensor
