# SPDX-License-Identifier: Apache-2.0
"""``tramontane quantize``: save a model in another type or format, and collect importances."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tramontane.cli.common import common_options
from tramontane.cli.fleet import one_model
from tramontane.cli.loading import progress_bar
from tramontane.cli.options import ModelOptions, model_options
from tramontane.cli.output import say
from tramontane.cli.state import State

if TYPE_CHECKING:
    from tramontane.export import WriteOptions
    from tramontane.load import Calibration, LoadOptions
    from tramontane.progress import Progress

_PATH = click.Path(path_type=Path)


@click.command()
@click.option(
    "-o",
    "--output",
    type=_PATH,
    metavar="PATH",
    help="A new folder, or a file whose ending names a format (.gguf, .uqff).",
)
@click.option("--save-imatrix", "importances", type=_PATH, metavar="FILE", help="Keep what --calibrate collects.")
@click.option("--format-version", metavar="VERSION", help="Version of the file's format, such as 0.2 for .uqff.")
@click.option("--lossy", is_flag=True, help="Write even what the file's format cannot describe in full.")
@common_options(model_options)
def command(
    state: State,
    output: Path | None,
    importances: Path | None,
    format_version: str | None,
    lossy: bool,
    model_options: ModelOptions,
) -> None:
    """Save a model quantized, so that it loads at once.

    A folder gets safetensors files, the configuration, and the tokenizer and templates of the original; it is loaded
    with -m DIR, and nothing is quantized again. A file such as model.gguf is written in the format that its ending
    names. Without --quant or --topology the weights are saved as they are.

    With --calibrate TEXT errors of inputs count by how strong they are when the model reads the text; --save-imatrix
    FILE keeps that (llama.cpp's form) for --imatrix.
    """
    if output is None and importances is None:
        raise click.UsageError("nothing to write: name the model with -o PATH, or importances with --save-imatrix FILE")
    if importances is not None and model_options.calibrate is None:
        raise click.UsageError("--save-imatrix keeps what --calibrate TEXT collects")
    from tramontane.api.settings import load_options

    model, settings = one_model(state, None, model_options)
    options = load_options(settings)
    with progress_bar(state) as progress:
        collected = None
        if importances is not None:
            collected = _collected(state, model, options, importances, progress)
        if output is not None:
            from tramontane.export import WriteOptions

            write = WriteOptions(changed=lossy, version=format_version)
            _write(state, model, options, output, collected, progress, write)


def _collected(state: State, model: str, options: LoadOptions, target: Path, progress: Progress) -> Calibration:
    from tramontane.load import calibrate

    found = calibrate(model, Path(options.calibrate or ""), options, state.plugins, progress)
    found.save(target, state.plugins)
    say(f"{target}: importances of {len(found.statistics)} matrices from {found.chunks} chunks of {found.text.name}")
    return found


def _write(
    state: State,
    model: str,
    options: LoadOptions,
    output: Path,
    collected: Calibration | None,
    progress: Progress,
    write: WriteOptions,
) -> None:
    """Write the model to a folder, or to a file in the format that its ending names."""
    from tramontane.load import save_model
    from tramontane.memory import format_bytes

    importances = None if collected is None else collected.importances
    form = next((one.name for one in state.plugins.catalogs.writers if output.name.endswith(one.extensions)), None)
    if form is None:
        if write.version is not None:
            raise click.UsageError("--format-version is of files; name one with -o, such as model.uqff")
        saved = save_model(model, output, options, plugins=state.plugins, progress=progress, importances=importances)
        size, before, plan = sum(file.stat().st_size for file in saved.files), saved.stored_nbytes, saved.plan
    else:
        from tramontane.export import convert_model

        converted = convert_model(
            model, output, options, state.plugins, form=form, write=write, progress=progress, importances=importances
        )
        size, before, plan = (
            sum(file.stat().st_size for file in converted.files),
            converted.stored_nbytes,
            converted.plan,
        )
    bits = 8 * size / plan.parameters
    kinds = Counter(part.scheme.name for weight in plan.weights for part in weight.parts)
    say(f"{output}: {format_bytes(size)} instead of {format_bytes(before)}, {bits:.2f} bits per weight")
    say(f"matrices: {', '.join(f'{count} x {kind}' for kind, count in kinds.most_common())}")
