# SPDX-License-Identifier: Apache-2.0
"""``tramontane inspect``: what a checkpoint holds and who would run it. It reads headers and no weights."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import TYPE_CHECKING, Any

import attrs
import click

from tramontane.cli.loading import DEMO, named_model
from tramontane.cli.options import ModelOptions, shared
from tramontane.cli.output import print_json, print_table
from tramontane.cli.state import State, verbosity_options
from tramontane.errors import ConflictError, TramontaneError, UnknownNameError

if TYPE_CHECKING:
    from tramontane.checkpoint import Checkpoint, TensorRef
    from tramontane.load import LoadOptions
    from tramontane.plugins import Plugins


@click.command()
@click.argument("model", required=False, metavar="[MODEL]")
@shared("-m", "--model", "named", metavar="MODEL", help="The same, as other commands take it.")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@shared("--quant", metavar="TYPE", help="Stored format to pick, or type to plan for; a number means bits.")
@shared("--revision", metavar="REV", help="Branch, tag or commit on the hub.")
@shared("--offline", is_flag=True, help="Look only at files that are here already.")
@shared("--allow-pickle", is_flag=True, help="Read pickled weights too, which can run code.")
@verbosity_options
@click.pass_obj
def command(
    state: State,
    model: str | None,
    named: str | None,
    tensors: bool,
    as_json: bool,
    quant: str | None,
    revision: str | None,
    offline: bool,
    allow_pickle: bool,
) -> None:
    """Show what a checkpoint holds, without loading it.

    MODEL is a folder, a file, a hub id, or demo (the default).
    """
    from tramontane.load import LoadOptions, open_reference

    wanted = named_model(model, ModelOptions(model=named)) or DEMO
    options = LoadOptions(quant=quant, revision=revision, offline=offline or None, allow_pickle=allow_pickle)
    with open_reference(wanted, options, state.plugins) as checkpoint:
        facts = describe(checkpoint, state.plugins, options)
        rows = [_row(ref) for _, ref in sorted(checkpoint.tensors.items())] if tensors else []
    if as_json:
        print_json(
            {**facts, **({"tensors": [dict(zip(_COLUMNS, row, strict=True)) for row in rows]} if tensors else {})}
        )
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {_for_people(name, value)}")
    if tensors:
        click.echo()
        print_table(_COLUMNS, rows, right=("bytes",))


def describe(checkpoint: Checkpoint, plugins: Plugins, options: LoadOptions) -> dict[str, Any]:
    """What there is to say about a checkpoint in a few lines."""
    checkpoint, untranslated = _translated(checkpoint, plugins, options)
    stored = [ref for ref in checkpoint.tensors.values() if ref.alias_of is None]
    types = Counter(_type(ref) for ref in stored)
    packed = any(ref.encoding for ref in stored)
    return {
        "path": str(checkpoint.path),
        "classes": list(checkpoint.architectures),
        "architecture": [_runs(name, plugins) for name in checkpoint.architectures],
        "dialect": checkpoint.dialect,
        "tensor_count": len(checkpoint.tensors),
        **({} if packed else {"parameters": sum(prod(ref.shape) for ref in stored)}),
        "bytes": checkpoint.nbytes,
        "types": dict(sorted(types.items(), key=lambda item: (-item[1], item[0]))),
        "files": sorted(checkpoint.files.entries),
        "chat_templates": _templates(checkpoint),
        **(untranslated or _memory(checkpoint, plugins, options)),
    }


def _translated(checkpoint: Checkpoint, plugins: Plugins, options: LoadOptions) -> tuple[Checkpoint, dict[str, str]]:
    """The checkpoint as the architecture that knows its format understands it; or itself and why there is none."""
    from tramontane.load.foreign import translated

    try:
        return translated(checkpoint, options, plugins), {}
    except TramontaneError as error:
        return checkpoint, {"plan": error.message}


def _templates(checkpoint: Checkpoint) -> list[str]:
    from tramontane.chat import find_template

    source = find_template(checkpoint.files)
    return [] if source is None else sorted(source.templates)


def _memory(checkpoint: Checkpoint, plugins: Plugins, options: LoadOptions) -> dict[str, Any]:
    """What the model would take here; or, in one line, why that cannot be said."""
    from tramontane.load import survey

    try:
        found = survey(checkpoint, plugins, options)
    except TramontaneError as error:
        return {"plan": error.message}
    return attrs.asdict(found)


def _runs(class_name: str, plugins: Plugins) -> str:
    """Who runs a model class; where nobody does, why not and what to do."""
    try:
        spec = plugins.catalogs.architectures.get(class_name)
    except (UnknownNameError, ConflictError) as error:
        return f"{error.message} ({error.hint})"
    return f"{spec.name}{spec.origin}"


_COLUMNS = ("name", "type", "shape", "bytes")


def _row(ref: TensorRef) -> tuple[str, str, str, str]:
    kind = f"= {ref.alias_of}" if ref.alias_of is not None else _type(ref)
    return ref.name, kind, "x".join(map(str, ref.shape)) or "scalar", str(ref.nbytes)


def _type(ref: TensorRef) -> str:
    return ref.encoding or str(ref.dtype).removeprefix("torch.")


def _for_people(name: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{count} {kind}" for kind, count in value.items()) or "none"
    if name == "bytes" or name.startswith("bytes_"):
        from tramontane.memory import format_bytes

        return format_bytes(value)
    return f"{value:,}" if isinstance(value, int) else str(value)
