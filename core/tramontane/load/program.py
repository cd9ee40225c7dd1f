# SPDX-License-Identifier: Apache-2.0
"""From loaded weights to something that runs: a kernel for every op, and the captured step.

Done once while a model is loaded, and again when its weights have been exchanged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tramontane.backends.base import Backend
from tramontane.build import Blueprint
from tramontane.errors import CaptureRefused
from tramontane.load.options import LoadOptions
from tramontane.ops import Op
from tramontane.plugins import Plugins
from tramontane.records import resolve
from tramontane.runner import ModelRunner
from tramontane.tape.capture import capture

_log = logging.getLogger(__name__)


def bind(blueprint: Blueprint, backend: Backend, plugins: Plugins) -> None:
    """Choose a kernel for every op of the model.

    Raises:
        PlanError: No kernel takes an op with its weights.
    """
    kernels = candidates_of(backend, plugins)
    for bound in blueprint.ops:
        bound.bind(kernels(bound.op))


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
    """Capture the step; a refusal is said once and the model runs its own code. Returns ``captured``, or why not.

    Raises:
        CaptureRefused: The options insist on capturing.
    """
    layout = runner.cache_layout
    if options.capture is False:
        return "off"
    try:
        with torch.inference_mode():
            tape, runner.program = capture(
                runner.body,
                blueprint.runtime,
                backend,
                [g.block_tokens for g in layout.groups],
                max_tokens=options.engine.max_batched_tokens,
                max_outputs=options.engine.max_batched_tokens,
                candidates=candidates_of(backend, plugins),
                states=bool(layout.state_layers),
            )
    except CaptureRefused as refusal:
        if options.capture:
            raise
        _log.warning("the step is not captured, it runs the model's code each time: %s", refusal.message)
        return f"eager: {refusal.message}"
    cuts = tape.segments()
    if cuts:
        _log.warning(
            "torch calls of the model's own code cut the captured step into %d segments: %s",
            len(cuts) + 1,
            ", ".join(dict.fromkeys(cuts)),
        )
    return "captured"
