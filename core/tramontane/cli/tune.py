# SPDX-License-Identifier: Apache-2.0
"""``tramontane tune``: which type of a model to take on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from tramontane.cli.common import common_options
from tramontane.cli.fleet import one_model
from tramontane.cli.loading import progress_bar
from tramontane.cli.options import HABITS, ModelOptions, model_options
from tramontane.cli.output import paint, print_json, print_table, say
from tramontane.cli.state import State
from tramontane.errors import ConfigError

if TYPE_CHECKING:
    from tramontane.load.tuning import Candidate, Tuning

PROFILES = ("quality", "balanced", "fast")
"""Those of :class:`tramontane.load.tuning.Profile`, which is imported only when the command runs."""
_COLUMNS = ("quant", "bits", "size", "memory", "context room", "quality", "status")


@click.command(epilog=HABITS)
@click.argument("reference", metavar="[MODEL]", required=False)
@click.option(
    "--profile", type=click.Choice(PROFILES), default="balanced", show_default=True, help="What matters most."
)
@click.option("--emit-config", type=click.Path(path_type=Path), metavar="FILE", help="Write the choice for --config.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common_options(model_options)
def command(
    state: State,
    reference: str | None,
    profile: str,
    emit_config: Path | None,
    as_json: bool,
    model_options: ModelOptions,
) -> int:
    """Find the type of a model that suits this machine.

    Plans every type from the model's configuration and headers; a model on the hub is downloaded for that, since its
    headers lie in its files. Exits with 1 where nothing fits.
    """
    from tramontane.api.settings import load_options
    from tramontane.load import open_reference
    from tramontane.load.tuning import Profile, tune

    if model_options.quant is not None:
        raise click.UsageError("tune chooses the type itself: leave --quant out")
    model, settings = one_model(state, reference, model_options)
    options = load_options(settings)
    with progress_bar(state) as progress, open_reference(model, options, state.plugins, progress) as checkpoint:
        found = tune(checkpoint, state.plugins, options, Profile(profile))
    if as_json:
        print_json({"model": model, "profile": profile, **attrs.asdict(found)})
    else:
        _print(found)
    best = found.recommended
    if best is None:
        say("nothing fits: free memory, or choose a smaller model")
        return 1
    if not as_json:
        say(f"run it with: tramontane run -m {model}{f' --quant {best.quant}' if best.quant else ''}")
    if emit_config is not None:
        _emit(emit_config, model, best, found.max_model_len)
    return 0


def _print(found: Tuning) -> None:
    from tramontane.memory import format_bytes

    say(
        f"{format_bytes(found.free)} free for the backend {found.backend}; the model takes {found.max_model_len} tokens"
    )
    colours = {"recommended": "green", "too large": "red"}
    rows = [
        (
            one.quant or "as stored",
            f"{one.bits:.2f}",
            format_bytes(one.nbytes),
            f"{one.share:.0%}",
            f"{one.context:,}",
            str(one.quality),
            paint(str(one.status), fg=colours.get(str(one.status))),
        )
        for one in found.candidates
    ]
    print_table(_COLUMNS, rows, right=("bits", "size", "memory", "context room"))


def _emit(path: Path, model: str, best: Candidate, trained: int) -> None:
    """Write a file for ``--config``.

    Raises:
        ConfigError: It exists, or cannot be written.
    """
    lines = [f"model = {json.dumps(model)}"]
    if best.quant:
        lines.append(f"quant = {json.dumps(best.quant)}")
    if best.context < trained:
        lines.append(f"max-model-len = {best.context}")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint="choose a new file") from None
    say(f"wrote {path}: tramontane run --config {path}")
