# SPDX-License-Identifier: Apache-2.0
"""``tramontane bench``: prefill and decode speed, with the test names of llama-bench.

Prompts are random tokens, each used once. The prefix cache is off, but for prefill at a depth, which stands on it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tramontane.cli.common import common_options
from tramontane.cli.fleet import one_model
from tramontane.cli.loading import progress_bar
from tramontane.cli.options import HABITS, ModelOptions, model_options, whole_numbers
from tramontane.cli.output import print_json, print_table, say
from tramontane.cli.state import State

if TYPE_CHECKING:
    from tramontane.cli.measure import Measurement

F = TypeVar("F", bound=Callable[..., Any])


def _list_option(short: str, long: str, default: str, low: int, text: str) -> Callable[[F], F]:
    return click.option(
        short, long, type=whole_numbers(low), default=default, show_default=True, metavar="N,...", help=text
    )


@click.command(epilog=HABITS)
@click.argument("reference", metavar="[MODEL]", required=False)
@_list_option("-p", "--prompt-tokens", "512", 0, "Prefill lengths; 0 skips.")
@_list_option("-g", "--new-tokens", "128", 0, "Decode lengths; 0 skips.")
@_list_option("-d", "--depth", "0", 0, "Tokens in the cache before.")
@_list_option("-c", "--concurrency", "1", 1, "Requests at a time.")
@click.option(
    "--with", "extras", type=click.Choice(["logprobs", "grammar"]), multiple=True, help="Measure decoding with it too."
)
@click.option("-r", "--repetitions", type=click.IntRange(1), default=5, show_default=True, help="Per test.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with an object per test.")
@common_options(model_options)
def command(
    state: State,
    reference: str | None,
    prompt_tokens: tuple[int, ...],
    new_tokens: tuple[int, ...],
    depth: tuple[int, ...],
    concurrency: tuple[int, ...],
    extras: tuple[str, ...],
    repetitions: int,
    as_json: bool,
    model_options: ModelOptions,
) -> None:
    """Measure a model's speed on this machine.

    ppN: N prompt tokens are computed. tgN: N tokens are generated, one by one. @dN: with N tokens in the cache before.
    Numbers may be lists: -p 128,512 -c 1,8. Rates are tokens per second of all requests together. With --adapter, each
    test is run without and with every adapter, and --with adds decoding with log-probabilities or under a grammar;
    +NAME says which.
    """
    from tramontane.api import LLM
    from tramontane.api.service import Service
    from tramontane.cli.measure import Bench, cases

    adapters = [adapter for adapter, _ in model_options.adapter]
    planned = cases(prompt_tokens, new_tokens, depth, concurrency, adapters, tuple(dict.fromkeys(extras)))
    if not planned:
        raise click.UsageError("nothing to measure: --prompt-tokens and --new-tokens are both 0")
    name, given = one_model(state, reference, model_options)
    at_depth = any(case.prompt and case.depth for case in planned)
    settings = {"max_num_seqs": max(concurrency), **given, "prefix_cache": at_depth}
    if settings["max_num_seqs"] < max(concurrency):
        raise click.UsageError(f"--concurrency {max(concurrency)} needs --max-num-seqs of at least as many")
    with progress_bar(state) as progress:
        service = Service.load(name, settings, state.plugins, progress)
    with LLM.over(service) as llm:
        bench = Bench(llm)
        bench.check(planned)
        found = []
        for case in planned:
            if sys.stderr.isatty() and state.verbosity >= 0:
                say(f"{case.name} x{case.concurrency} ...")
            found.append(bench.measure(case, repetitions))
    if as_json:
        facts = _facts(service)
        print_json([{**measurement.as_dict(), **facts} for measurement in found])
    else:
        _print(name, service, found)


def _facts(service: Any) -> dict[str, Any]:
    import torch

    info = service.info
    return {
        "model": info.model,
        "architecture": info.architecture,
        "backend": info.backend,
        "device": info.device,
        "dtype": info.dtype,
        "quant": info.quant,
        "threads": torch.get_num_threads(),
        "capture": info.capture,
    }


def _print(name: str, service: Any, found: list[Measurement]) -> None:
    facts = _facts(service)
    click.echo(
        f"{name} ({facts['architecture']}), {facts['dtype']}, {facts['backend']} on {facts['device']}, "
        f"{facts['threads']} threads, step {facts['capture']}"
    )
    rows = [
        (
            m.case.name,
            str(m.case.concurrency),
            f"{m.tokens_per_s.mean:.2f} ± {m.tokens_per_s.deviation:.2f}",
            f"{m.ttft_s.mean * 1e3:.2f} ± {m.ttft_s.deviation * 1e3:.2f}",
        )
        for m in found
    ]
    columns = ("test", "concurrency", "tokens/s", "first token, ms")
    print_table(columns, rows, right=columns[1:])
