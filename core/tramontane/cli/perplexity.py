# SPDX-License-Identifier: Apache-2.0
"""``tramontane perplexity``: how well a model predicts a text, and how far it is from an unquantized base."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from tramontane.cli.common import common_options
from tramontane.cli.fleet import one_model
from tramontane.cli.loading import progress_bar
from tramontane.cli.options import ModelOptions, model_options
from tramontane.cli.output import print_json, say
from tramontane.cli.state import State

if TYPE_CHECKING:
    from tramontane.api import LLM

QUANTIZING = ("quant", "organization", "topology", "imatrix", "calibrate")
"""Settings that are not for the base."""


@click.command()
@click.option(
    "--text", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The text, as UTF-8."
)
@click.option("--chunk", default=512, show_default=True, type=click.IntRange(min=4), help="Tokens per chunk.")
@click.option("--chunks", "limit", type=click.IntRange(min=1), help="Stop after so many chunks.")
@click.option("--kl", "base", metavar="BASE", help="Compare with the predictions of this model, unquantized.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common_options(model_options)
def command(
    state: State,
    text: Path,
    chunk: int,
    limit: int | None,
    base: str | None,
    as_json: bool,
    model_options: ModelOptions,
) -> None:
    """Measure how well a model predicts a text, and what quantization costs.

    Chunks and counting are llama.cpp's: only the second half of each chunk counts. With --kl both models are in memory.
    """
    model, settings = one_model(state, None, model_options)
    found = measure(state, model, settings, text, chunk=chunk, limit=limit, base=base)
    if as_json:
        print_json(found)
        return
    click.echo(f"perplexity {found['perplexity']:.4f} +/- {found['error']:.4f} over {found['tokens']} tokens")
    if base is not None:
        click.echo(f"of the base {found['base_perplexity']:.4f}, ratio {found['ratio']:.5f}")
        names = ("mean", "median", "high", "largest")
        words = ("mean", "median", "99 %", "largest")
        values = ", ".join(f"{word} {found['kl'][name]:.6f}" for name, word in zip(names, words, strict=True))
        click.echo(f"divergence from the base: {values}; same top token {found['kl']['same_top']:.2%}")


def measure(
    state: State, model: str, settings: dict[str, Any], text: Path, *, chunk: int, limit: int | None, base: str | None
) -> dict[str, Any]:
    """Everything that is measured, by name."""
    from tramontane.api import LLM
    from tramontane.evaluate import DivergenceMeter, PerplexityMeter, chunks

    with ExitStack() as stack:
        with progress_bar(state) as progress:
            llm = stack.enter_context(LLM(model, progress=progress, **settings))
            plain = {name: value for name, value in settings.items() if name not in QUANTIZING}
            other = None if base is None else stack.enter_context(LLM(base, progress=progress, **plain))
        ids, bos = _encoded(llm, text)
        own, theirs, apart = PerplexityMeter(), PerplexityMeter(), DivergenceMeter()
        for number, part in enumerate(chunks(ids, chunk, bos, limit), 1):
            logits = llm.logits(part)
            own.add(part, logits)
            if other is not None:
                expected = other.logits(part)
                theirs.add(part, expected)
                apart.add(part, expected, logits)
            if state.verbosity > 0:
                say(f"[{number}] {own.result().value:.4f}")
    result = own.result()
    found: dict[str, Any] = {"perplexity": result.value, "error": result.error, "tokens": result.tokens, "chunk": chunk}
    if other is not None:
        expected_value = theirs.result().value
        found |= {"base_perplexity": expected_value, "ratio": result.value / expected_value}
        found["kl"] = attrs.asdict(apart.result())
    return found


def _encoded(llm: LLM, text: Path) -> tuple[list[int], int | None]:
    """The text's ids without special ones, and the beginning-of-sequence id if prompts get one."""
    ids = llm.tokenize(text.read_text(encoding="utf-8"), add_special=False)
    whole, body = llm.tokenize("a"), llm.tokenize("a", add_special=False)
    return ids, whole[0] if whole[:1] != body[:1] else None
