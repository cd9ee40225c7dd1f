# SPDX-License-Identifier: Apache-2.0
"""From a reference to an opened checkpoint, the architecture that runs it, and a backend to run it on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from tramontane import hub
from tramontane.backends.base import Backend
from tramontane.checkpoint import Checkpoint, OpenOptions
from tramontane.errors import CheckpointError, ModelNotFoundError, PlanError, UnknownNameError
from tramontane.load.options import LoadOptions
from tramontane.plugins import Plugins
from tramontane.plugins.known import FILE_ENDING, distribution_of
from tramontane.progress import Progress, silent
from tramontane.records import ArchitectureSpec, BackendSpec, LoaderSpec, resolve

_log = logging.getLogger(__name__)


def open_reference(ref: str, options: LoadOptions, plugins: Plugins, progress: Progress | None = None) -> Checkpoint:
    """Find and open a checkpoint without building anything."""
    path = local_files(ref, options, plugins, progress)
    loaders = _loaders(plugins)
    for spec in loaders:
        if resolve(spec.detect, spec)(path):
            checkpoint: Checkpoint = resolve(spec.open, spec)(path, OpenOptions(allow_pickle=options.allow_pickle))
            return checkpoint
    raise _unrecognized(path, loaders, plugins.catalogs.loaders.trouble())


def local_files(
    ref: str,
    options: LoadOptions,
    plugins: Plugins,
    progress: Progress | None = None,
    announce: hub.Announce = hub.unannounced,
) -> Path:
    """Where the files are: as a plugin says, or on disk, or fetched from the hub. Nothing is opened.

    Args:
        ref: A folder, a file, a hub id, or a name that a plugin knows.
        options: Revision, token, type and the like.
        plugins: Whose loaders say what a model's files are.
        progress: Is told how a download goes.
        announce: Is told what a download would bring before it begins, and may prevent it by raising.

    Raises:
        HubError: The reference cannot be resolved to files.
    """
    loaders = _loaders(plugins)
    _refuse_missing(ref, plugins)
    asked = {"revision": options.revision, "offline": options.offline, "quant": options.quant}
    found = plugins.decisions.resolve_model(ref, asked)
    if found is not None:
        return Path(found)

    def choose(names: Sequence[str], quant: str | None) -> Sequence[str]:
        choices = (resolve(spec.choose, spec)(names, quant) for spec in loaders if spec.choose is not None)
        return next((chosen for chosen in choices if chosen), ())

    return hub.resolve(
        ref,
        revision=options.revision,
        token_source=options.token_source,
        offline=options.offline,
        allow_pickle=options.allow_pickle,
        endings=[ending for spec in loaders for ending in spec.extensions],
        choose=choose,
        quant=options.quant,
        progress=progress or silent,
        announce=announce,
    )


def _refuse_missing(ref: str, plugins: Plugins) -> None:
    """A name that a plugin of this project would know, were it in use, is no name to ask the hub for."""
    catalog = plugins.catalogs.loaders
    if distribution_of(LoaderSpec.kind, ref) is not None and not Path(ref).exists():
        try:
            catalog.get(ref)
        except UnknownNameError as missing:
            raise ModelNotFoundError(
                f"the model {ref!r} comes with a plugin that is not in use", hint=missing.hint
            ) from None


def _unrecognized(path: Path, loaders: Sequence[LoaderSpec], trouble: str | None) -> CheckpointError:
    """No loader wants a path: what it is, and what the loaders read."""
    kinds = [f"{spec.name} ({' '.join(spec.extensions)})" for spec in loaders if spec.extensions]
    held = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else [path.name]
    known = {ending for spec in loaders for ending in spec.extensions}
    brings = {distribution_of(FILE_ENDING, ending) for ending in {Path(name).suffix for name in held} - known} - {None}
    hint = f"installed loaders: {', '.join(kinds)}" + (f"; {trouble}" if trouble else "")
    if brings:
        hint = f"pip install {' '.join(sorted(filter(None, brings)))}; {hint}"
    if not path.is_dir():
        return CheckpointError(f"no loader recognizes {path}", hint=hint)
    what = f"it has {', '.join(held[:5])}{' ...' if len(held) > 5 else ''}" if held else "it is empty"
    return CheckpointError(f"the folder {path} holds no model: {what}", hint=hint)


def _loaders(plugins: Plugins) -> list[LoaderSpec]:
    """In the order in which they are asked."""
    return sorted(plugins.catalogs.loaders, key=lambda spec: (-spec.priority, spec.name))


def find_architecture(checkpoint: Checkpoint, options: LoadOptions, plugins: Plugins) -> ArchitectureSpec:
    """The record for the checkpoint's class, or for ``--arch``."""
    if options.arch is not None:
        return plugins.catalogs.architectures.get(options.arch)
    names = checkpoint.architectures
    if len(names) != 1:
        stated = ", ".join(names) or "none"
        raise CheckpointError(
            f"{checkpoint.path}: config.json states {stated} as architectures; exactly one is needed",
            hint="name it with --arch",
        )
    return plugins.catalogs.architectures.get(names[0])


def choose_backend(options: LoadOptions, plugins: Plugins) -> Backend:
    """The named backend, or the highest that works on the asked device."""
    catalog = plugins.catalogs.backends
    device = _device(options.device)
    kind = None if device is None else device.type
    if options.backend != "auto":
        specs = [catalog.get(options.backend)]
    else:
        specs = sorted((s for s in catalog if kind is None or kind in s.devices), key=lambda s: (-s.priority, s.name))
    refused = []
    for spec in specs:
        cls = resolve(spec.backend, spec)
        reason = _probe(cls, spec)
        if reason is None:
            made: Backend = cls() if device is None else cls(device)
            return made
        refused.append(f"{spec.name}: {reason}")
    known = ", ".join(sorted({device for spec in catalog for device in spec.devices}))
    raise PlanError(
        f"no backend for device {options.device!r} ({'; '.join(refused) or 'none installed'})",
        hint=f"devices with a backend: {known}",
    )


def _probe(backend: type[Backend], spec: BackendSpec) -> str | None:
    """Why a backend cannot run here. A broken one is passed over like one that does not fit, but never silently."""
    try:
        return backend.probe()
    except Exception as error:
        _log.warning("backend %s is broken: %s: %s", spec.name, type(error).__name__, error)
        return f"its probe failed with {type(error).__name__}: {error}"


def _device(name: str) -> torch.device | None:
    """The device of that name, ``None`` for ``auto``.

    Raises:
        PlanError: There is no such device, or not on this machine.
    """
    if name == "auto":
        return None
    try:
        device = torch.device(name)
    except RuntimeError:
        raise PlanError(f"there is no device {name!r}", hint="such as cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise PlanError(
            f"there is no device {name!r} here", hint=f"torch sees {found} CUDA devices; auto takes what is there"
        )
    return device
