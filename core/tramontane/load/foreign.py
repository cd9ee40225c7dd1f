# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of foreign formats: the configuration that an architecture makes of what the format says."""

from __future__ import annotations

from attrs import evolve

from tramontane.checkpoint import CANONICAL, Checkpoint
from tramontane.dialects import HUGGING_FACE, candidates, dialect_of
from tramontane.load.options import LoadOptions
from tramontane.plugins import Plugins
from tramontane.plugins.known import distribution_of
from tramontane.records import ArchitectureSpec


def translated(checkpoint: Checkpoint, options: LoadOptions, plugins: Plugins) -> Checkpoint:
    """The checkpoint with its configuration in Hugging Face's spelling; itself where it has that already.

    Raises:
        CheckpointError: The architecture that was asked for does not know the checkpoint's dialect.
        UnknownNameError: No installed architecture knows it.
    """
    if checkpoint.dialect in (HUGGING_FACE, CANONICAL):
        return checkpoint
    spec = _architecture(checkpoint.dialect, options, plugins)
    return evolve(checkpoint, config=dialect_of(spec, checkpoint.dialect).config(checkpoint))


def _architecture(dialect: str, options: LoadOptions, plugins: Plugins) -> ArchitectureSpec:
    catalog = plugins.catalogs.architectures
    if options.arch is not None:
        return catalog.get(options.arch)
    *special, plain = candidates(dialect)
    for key in special:
        if key in catalog or distribution_of(catalog.kind, key) is not None:
            return catalog.get(key)  # one that is not installed is named; the plain architecture could not run it
    return catalog.get(plain)
