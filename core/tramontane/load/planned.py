# SPDX-License-Identifier: Apache-2.0
"""From a reference and options to a model on paper with its open checkpoint: what is written without being loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from attrs import frozen

from tramontane.build.plan import ModelPlan
from tramontane.checkpoint import Checkpoint
from tramontane.load.design import Design, design, plan_weights
from tramontane.load.find import choose_backend, open_reference
from tramontane.load.foreign import translated
from tramontane.load.model import calibrated
from tramontane.load.options import LoadOptions
from tramontane.load.places import main_place
from tramontane.plugins import Plugins
from tramontane.progress import Progress
from tramontane.quantization import Importances


@frozen(kw_only=True)
class Planned:
    """A model on paper, and where its weights come from."""

    made: Design
    plan: ModelPlan
    checkpoint: Checkpoint


@contextmanager
def planned(
    ref: str,
    options: LoadOptions,
    plugins: Plugins,
    progress: Progress | None = None,
    *,
    importances: Importances | None = None,
    forms: Mapping[str, str] | None = None,
) -> Iterator[Planned]:
    """Open a checkpoint and plan it as loading would; it is closed at the end.

    Args:
        ref: As :func:`tramontane.load.load_model` takes it.
        options: What to quantize to, and everything else.
        plugins: Where loaders, formats and types are looked up.
        progress: Told about downloads and collecting importances.
        importances: What quantizing weighs by; collected, or read, as the options say if not given.
        forms: See :func:`tramontane.load.plan_weights`.

    Raises:
        TramontaneError: As :func:`tramontane.load.load_model`.
    """
    if importances is None:
        importances = calibrated(ref, options, plugins, progress)
    with open_reference(ref, options, plugins, progress) as opened:
        checkpoint = translated(opened, options, plugins)
        backend = choose_backend(main_place(options), plugins)
        made = design(checkpoint, options, plugins, backend)
        plan = plan_weights(made, checkpoint, options, plugins, backend, importances, forms)
        yield Planned(made=made, plan=plan, checkpoint=checkpoint)
