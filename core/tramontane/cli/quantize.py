# SPDX-License-Identifier: Apache-2.0
"""``tramontane quantize``: save a model in another type, one weight at a time."""

from __future__ import annotations

from pathlib import Path

import click

from tramontane.cli.config_file import config_option
from tramontane.cli.loading import chosen_model, model_settings, progress_bar
from tramontane.cli.options import ModelOptions, log_option, model_options
from tramontane.cli.output import say
from tramontane.cli.state import State, verbosity_options


@click.command()
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="A new folder for the model."
)
@config_option
@model_options
@log_option
@verbosity_options
@click.pass_obj
def command(state: State, output: Path, model_options: ModelOptions) -> None:
    """Save a model quantized, so that it loads at once.

    The folder holds safetensors files, the configuration, and the tokenizer and templates of the original. It is loaded
    with -m DIR; nothing is quantized again. Without --quant or --topology the weights are saved as they are.
    """
    from tramontane.api.settings import load_options
    from tramontane.load import save_model
    from tramontane.memory import format_bytes

    model = chosen_model(state, None, model_options)
    options = load_options(model_settings(model_options))
    with progress_bar(state) as progress:
        saved = save_model(model, output, options, plugins=state.plugins, progress=progress)
    size = sum(file.stat().st_size for file in saved.files)
    bits = 8 * size / saved.plan.parameters
    say(f"{output}: {format_bytes(size)} instead of {format_bytes(saved.stored_nbytes)}, {bits:.2f} bits per weight")
