# SPDX-License-Identifier: Apache-2.0
"""From loaded weights to something that runs: a kernel for every op, and the captured step.

Done once while a model is loaded, and again when its weights have been exchanged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tramontane.backends.base import Backend, Replays, Runnable
from tramontane.backends.spread import SpreadBackend
from tramontane.build import Blueprint
from tramontane.errors import CaptureRefused
from tramontane.load.options import LoadOptions
from tramontane.load.places import place_of
from tramontane.ops import Op, reads_host
from tramontane.plugins import Plugins
from tramontane.records import resolve
from tramontane.runner import ModelRunner
from tramontane.tape.capture import capture
from tramontane.tape.ir import OpNode, Tape

_log = logging.getLogger(__name__)

SPREAD = "the model is spread over several devices"


def bind(blueprint: Blueprint, backend: Backend, plugins: Plugins) -> None:
    """Choose a kernel for every op of the model.

    Raises:
        PlanError: No kernel takes an op with its weights.
    """
    kernels = {id(one): candidates_of(one, plugins) for one in (place_of(bound, backend) for bound in blueprint.ops)}
    for bound in blueprint.ops:
        bound.bind(kernels[id(place_of(bound, backend))](bound.op))


def candidates_of(backend: Backend, plugins: Plugins) -> Callable[[Op], Sequence[tuple[str, Any]]]:
    """Kernels for an op: those that plugins contribute for this device, then the backend's own."""
    specs = sorted(
        (s for s in plugins.catalogs.kernels if backend.device.type in s.devices), key=lambda s: (-s.priority, s.name)
    )

    def candidates(op: Op) -> Sequence[tuple[str, Any]]:
        contributed = [(spec.name, resolve(spec.make, spec)) for spec in specs if spec.op == op.name]
        return (*contributed, *backend.candidates(op))

    return candidates


def capture_step(
    runner: ModelRunner, blueprint: Blueprint, backend: Backend, plugins: Plugins, options: LoadOptions
) -> str:
    """Capture the step, and once more with adapters if there are any; a refusal is said once and the model runs its own
    code. Returns ``captured``, or why not.

    Raises:
        CaptureRefused: The options insist on capturing.
    """
    runner.replays = None
    runner.program, note = _captured(runner, blueprint, backend, plugins, options, 0)
    capture_adapted(runner, blueprint, backend, plugins, options)
    return note


def capture_adapted(
    runner: ModelRunner, blueprint: Blueprint, backend: Backend, plugins: Plugins, options: LoadOptions
) -> None:
    """Capture the step of batches whose tokens use adapters. Steps of others keep the program without."""
    table = runner.adapters
    runner.adapted = None
    if table is not None and table.banks:
        runner.adapted, _ = _captured(runner, blueprint, backend, plugins, options, table.columns)


def _captured(
    runner: ModelRunner, blueprint: Blueprint, backend: Backend, plugins: Plugins, options: LoadOptions, columns: int
) -> tuple[Runnable | None, str]:
    """A program for batches with so many columns in their mix, and ``captured``, or why there is none."""
    layout = runner.cache_layout
    if options.capture is False:
        return None, "off"
    if isinstance(backend, SpreadBackend):
        if options.capture:
            raise CaptureRefused(SPREAD)
        return None, f"eager: {SPREAD}"
    try:
        with torch.inference_mode():
            tape, program = capture(
                runner.body,
                blueprint.runtime,
                backend,
                [g.block_tokens for g in layout.groups],
                max_tokens=options.engine.max_batched_tokens,
                max_outputs=options.engine.max_batched_tokens,
                candidates=candidates_of(backend, plugins),
                states=bool(layout.state_layers),
                columns=columns,
            )
    except CaptureRefused as refusal:
        if options.capture:
            raise
        _log.warning("the step is not captured, it runs the model's code each time: %s", refusal.message)
        return None, f"eager: {refusal.message}"
    if not columns:
        runner.replays = _replays(tape, backend, options)
    cuts = tape.segments()
    if cuts:
        _log.warning(
            "torch calls of the model's own code cut the captured step into %d segments: %s",
            len(cuts) + 1,
            ", ".join(dict.fromkeys(cuts)),
        )
    return program, "captured"


def _replays(tape: Tape, backend: Backend, options: LoadOptions) -> Replays | None:
    """What replays whole steps, where every kernel of the tape runs without asking the host for numbers."""
    found = backend.replays(options.engine.max_batched_tokens, options.engine.max_num_seqs)
    if found is None:
        return None
    calls = [node.call for node in tape.nodes if isinstance(node, OpNode)]
    asking = {
        call.op.name: call.choice.kernel if call.choice else "its kernel"
        for call in calls
        if call.kernel is not None and reads_host(call.kernel)
    }
    if asking:
        _log.warning(
            "steps are not replayed as graphs: these kernels ask the host for numbers: %s",
            ", ".join(f"{kernel} for {op}" for op, kernel in asking.items()),
        )
        return None
    return found
