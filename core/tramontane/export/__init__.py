# SPDX-License-Identifier: Apache-2.0
"""A loaded model on its way to a file: its tensors by name, exact and lazy, whatever the backend made of them.

Owns what every writer needs: reading weights back from their storage, one at a time, undoing a weight map so that a
format's names, fusions and stacks come out, and telling whether a file would be read as the same model. It knows no
format; those are :class:`~tramontane.records.WriterSpec`'s.
"""

from __future__ import annotations

from tramontane.export.convert import Converted, convert_model
from tramontane.export.model import Export, ModelTensor, Outgoing, WriteOptions, export, write_model
from tramontane.export.same import check_same_model

__all__ = [
    "Converted",
    "Export",
    "ModelTensor",
    "Outgoing",
    "WriteOptions",
    "check_same_model",
    "convert_model",
    "export",
    "write_model",
]
