# SPDX-License-Identifier: Apache-2.0
"""From a reference and options to a saved model, without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from tramontane.build.plan import ModelPlan
from tramontane.checkpoint import Checkpoint
from tramontane.config import read_dtype
from tramontane.load.design import Design
from tramontane.load.options import LoadOptions
from tramontane.load.planned import planned
from tramontane.plugins import Plugins, installed
from tramontane.progress import Progress
from tramontane.quantization import Importances
from tramontane.saved import save_plan


@frozen(kw_only=True)
class Saved:
    """What was written."""

    files: tuple[Path, ...]
    plan: ModelPlan
    stored_nbytes: int
    """Bytes of the tensors that it was made from."""


def save_model(
    ref: str,
    directory: Path,
    options: LoadOptions | None = None,
    *,
    plugins: Plugins | None = None,
    progress: Progress | None = None,
    importances: Importances | None = None,
) -> Saved:
    """Write the model, quantized as the options say, so that it loads back as it is.

    Args:
        ref: As :func:`tramontane.load.load_model` takes it.
        directory: A new or empty folder.
        options: What to quantize to.
        plugins: Where formats and types are looked up.
        progress: Told how far it is.
        importances: What quantizing weighs by; collected, or read, as the options say if not given.

    Raises:
        TramontaneError: As :func:`tramontane.load.load_model`; or the folder is not empty.
    """
    options, plugins = options or LoadOptions(), plugins or installed()
    with planned(ref, options, plugins, progress, importances=importances) as one:
        config = _config(one.checkpoint, one.made)
        files = save_plan(one.plan, one.made.blueprint, one.checkpoint, directory, config=config, progress=progress)
        return Saved(files=files, plan=one.plan, stored_nbytes=one.checkpoint.nbytes)


def _config(checkpoint: Checkpoint, made: Design) -> Mapping[str, Any]:
    """The configuration without what it says of a quantization that the files no longer have."""
    config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    for key, value in config.items():
        if isinstance(value, Mapping) and "quantization_config" in value:
            config[key] = {name: inner for name, inner in value.items() if name != "quantization_config"}
    classes = made.architecture.classes
    if not set(checkpoint.architectures) & set(classes):
        config["architectures"] = [classes[0]]
    if read_dtype(config) is None:
        config["dtype"] = str(made.blueprint.dtype).removeprefix("torch.")
    return config
