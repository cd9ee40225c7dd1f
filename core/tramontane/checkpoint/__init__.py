# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: lazy, sliceable tensors and the files beside them.

Owns the records that every loader produces and the loader of Hugging Face directories (safetensors, and pickle where it
is asked for). It does not find or download models (:mod:`tramontane.hub`) and does not know what tensors mean.
"""

from __future__ import annotations

from tramontane.checkpoint.checkpoint import CANONICAL, Checkpoint, OpenOptions
from tramontane.checkpoint.directory import open_checkpoint, open_tensors, recognizes
from tramontane.checkpoint.files import Files
from tramontane.checkpoint.mapped import MappedFile
from tramontane.checkpoint.refs import MappedTensor, MemoryTensor, TensorRef

__all__ = [
    "CANONICAL",
    "Checkpoint",
    "Files",
    "MappedFile",
    "MappedTensor",
    "MemoryTensor",
    "OpenOptions",
    "TensorRef",
    "open_checkpoint",
    "open_tensors",
    "recognizes",
]
