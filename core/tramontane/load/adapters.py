# SPDX-License-Identifier: Apache-2.0
"""From a path or hub id to an adapter that a loaded model can use."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from attrs import frozen

from tramontane import hub
from tramontane.adapters import Adapter, AdapterTable, Fitted, LoadedAdapter, Piece, Ready, Targets, fit
from tramontane.backends.base import Backend
from tramontane.build import Blueprint
from tramontane.checkpoint import OpenOptions
from tramontane.errors import AdapterError, ConfigError, OutOfMemoryError
from tramontane.load.design import Design, weight_maps
from tramontane.load.options import LoadOptions
from tramontane.load.program import candidates_of
from tramontane.memory import format_bytes
from tramontane.ops import AttendLatent, BoundOp, Linear
from tramontane.plugins import Plugins
from tramontane.plugins.known import distributions_of
from tramontane.progress import Progress, silent
from tramontane.records import AdapterSpec, resolve
from tramontane.weightmap import WeightMap

_log = logging.getLogger(__name__)


@frozen(eq=False)
class Found:
    """An opened adapter and where it goes."""

    reference: str
    adapter: Adapter
    fitted: Fitted

    def ready(self, dtype: torch.dtype) -> Ready:
        """Read it; its files are closed then.

        Raises:
            AdapterError: It holds what are no numbers.
        """
        with self.adapter:
            pieces: dict[str, dict[int, Piece]] = {}
            for path, parts in self.fitted.parts.items():
                pieces[path] = {part: one.read(dtype) for part, one in parts.items()}
        return Ready(
            kind=self.adapter.kind, reference=self.reference, base=self.adapter.base, fitted=self.fitted, pieces=pieces
        )


def make_table(
    made: Design, config: Mapping[str, object], options: LoadOptions, plugins: Plugins, backend: Backend
) -> AdapterTable:
    """The table of a model on paper, without an adapter."""
    given = len(options.adapters)
    columns = options.max_adapters
    if not columns >= 1 or given > columns:
        raise ConfigError(f"max_adapters is {columns}, and {given} adapters are given")
    blueprint, kernels = made.blueprint, candidates_of(backend, plugins)

    def bind(op: BoundOp) -> None:
        op.bind(kernels(op.op))

    targets = Targets(
        model=made.architecture.name,
        matrices=blueprint.matrices,
        adaptable=_adaptable(blueprint),
        maps=_maps(made, config),
    )
    return AdapterTable(targets, blueprint, columns, bind)


def _maps(made: Design, config: Mapping[str, object]) -> list[WeightMap]:
    maps = weight_maps(made.architecture, config)
    return [*maps, *(one for each in maps if (one := each.as_the_model_has_them()) not in maps)]


def _adaptable(blueprint: Blueprint) -> frozenset[str]:
    """Matrices whose only use is in linear layers or latent attention of the body. Heads, which answer in float32, are
    none of it."""
    used = [one.weights[0] for one in blueprint.ops if isinstance(one.op, Linear) and one.op.out_dtype is None]
    used += [one.weights[1] for one in blueprint.ops if isinstance(one.op, AttendLatent)]
    return frozenset(matrix.path for matrix in used if matrix.uses <= {"linear", "absorbed"})


def find_adapter(
    reference: str, table: AdapterTable, options: LoadOptions, plugins: Plugins, progress: Progress | None = None
) -> Found:
    """Open an adapter and find its places in a model. Reads names and shapes only.

    Args:
        reference: A folder, or a repository on the hub.
        table: That of the model.
        options: How to reach the hub.
        plugins: Whose kinds of adapter are asked.
        progress: Is told how a download goes.

    Raises:
        HubError: The reference cannot be resolved to files.
        AdapterError: No kind of adapter recognizes the files, they are damaged, or they do not fit the model; or the
            model is spread over several devices.
    """
    if options.device_map is not None or options.tensor_parallel > 1:
        raise AdapterError(
            f"the adapter {reference} cannot be used: the model is spread over several devices",
            hint="load the model on one device, or merge the adapter into its weights",
        )
    kinds = sorted(plugins.catalogs.adapters, key=lambda spec: (-spec.priority, spec.name))
    path = hub.resolve(
        reference,
        token_source=options.token_source,
        offline=options.offline,
        files=[pattern for spec in kinds for pattern in spec.files] or ["adapter_model*.safetensors"],
        progress=progress or silent,
    )
    adapter = _opened(path, kinds, OpenOptions(allow_pickle=options.allow_pickle), plugins)
    try:
        fitted = fit(adapter, table.targets, table.dtype)
    except BaseException:
        adapter.close()
        raise
    return Found(str(reference), adapter, fitted)


def _opened(path: Path, kinds: list[AdapterSpec], options: OpenOptions, plugins: Plugins) -> Adapter:
    for spec in kinds:
        if resolve(spec.detect, spec)(path):
            adapter: Adapter = resolve(spec.open, spec)(path, options)
            return adapter
    held = ", ".join(sorted(entry.name for entry in path.iterdir())[:5]) if path.is_dir() else "a file"
    trouble = plugins.catalogs.adapters.trouble()
    known = ", ".join(spec.name for spec in kinds)
    if not kinds:
        known = f"none; pip install {' '.join(distributions_of(AdapterSpec.kind))}"
    raise AdapterError(
        f"no kind of adapter recognizes {path} ({held or 'it is empty'})",
        hint=f"installed kinds: {known}" + (f"; {trouble}" if trouble else ""),
    )


def check_memory(found: Found, backend: Backend) -> None:
    """Whether an adapter fits beside a running model.

    Raises:
        OutOfMemoryError: It does not.
    """
    needed, free = found.fitted.nbytes, backend.free_memory()
    if needed > free:
        raise OutOfMemoryError(
            f"the adapter {found.reference} needs {format_bytes(needed)}, and {format_bytes(free)} are free",
            hint="unload another adapter, or load the model with less --kv-memory",
        )


def announce(made: LoadedAdapter) -> None:
    """Say what was loaded."""
    _log.info(
        "adapter %s: %d linear layers, rank %d, %s", made.name, made.modules, made.rank, format_bytes(made.nbytes)
    )
