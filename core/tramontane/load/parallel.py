# SPDX-License-Identifier: Apache-2.0
"""What loading a model for several workers asks of the options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from attrs import evolve

from tramontane.distributed import Share
from tramontane.errors import ConfigError, PlanError
from tramontane.load.options import LoadOptions
from tramontane.plugins import Plugins

Connect = Callable[[Share, torch.device], None]
"""Joins the group of a model's workers, from the device on which this one computes."""


def check_parallel(options: LoadOptions, plugins: Plugins) -> None:
    """Refuse what cannot go together with several workers.

    Raises:
        ConfigError: The number of workers is wrong, or settings contradict it.
        PlanError: There are fewer devices than workers, or a plugin that workers cannot load.
    """
    world = options.tensor_parallel
    if not isinstance(world, int) or isinstance(world, bool) or world < 1:
        raise ConfigError(f"tensor_parallel must be a whole number above 0, got {world!r}")
    if world == 1:
        if options.expert_parallel:
            raise ConfigError("expert_parallel spreads experts over workers", hint="say how many: --tensor-parallel N")
        return
    if options.device_map is not None:
        raise ConfigError("a model is spread by --device-map or shared by --tensor-parallel, not both")
    found = torch.cuda.device_count()
    kind, mark, _ = options.device.partition(":")
    if mark:
        raise ConfigError(
            f"tensor parallelism takes the devices {kind}:0 to {kind}:{world - 1}, not {options.device}",
            hint=f"say --device {kind}; CUDA_VISIBLE_DEVICES chooses among cards",
        )
    if kind == "cuda" and found < world:
        raise PlanError(f"{world} workers need {world} CUDA devices, and torch sees {found}")
    late_files(plugins)


def device_of_worker(options: LoadOptions, share: Share) -> LoadOptions:
    """The options with the device of one worker: each has a card of its own, or all share the host."""
    if not share.parted:
        return options
    cards = torch.cuda.device_count()
    if options.device == "cuda" or (options.device == "auto" and cards >= share.shard.world):
        return evolve(options, device=f"cuda:{share.shard.rank}")
    return evolve(options, device="cpu") if options.device == "auto" else options


def late_files(plugins: Plugins) -> list[str]:
    """Plugins that were given as files; workers load them too.

    Raises:
        PlanError: One was given as a module, which other processes do not have.
    """
    files = []
    for loaded in plugins.loaded:
        if loaded.id.distribution is not None:
            continue
        if not Path(loaded.id.name).is_file():
            raise PlanError(
                f"the plugin {loaded.id} is a module of this process, which other workers cannot load",
                hint="give it as a file",
            )
        files.append(loaded.id.name)
    return files
