# SPDX-License-Identifier: Apache-2.0
"""``tramontane run``: one answer with ``-p`` or from a pipe, else a chat in the terminal.

The answer alone goes to standard output; what is said about it goes to standard error.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve

from tramontane.cli.common import common_options
from tramontane.cli.constraint import constraint_options
from tramontane.cli.fleet import add_models, one_model
from tramontane.cli.loading import (
    adapter_option,
    chosen_adapter,
    machine_settings,
    progress_bar,
)
from tramontane.cli.options import (
    HABITS,
    GenerationOptions,
    ModelOptions,
    generation_options,
    model_options,
    shared,
)
from tramontane.cli.output import print_json, say
from tramontane.cli.state import State
from tramontane.errors import RequestError
from tramontane.grammar import Constraint

if TYPE_CHECKING:
    from tramontane.api import LLM, Completion, CompletionStream
    from tramontane.host import FrontendOptions

CHAT = "chat"
"""The frontend that holds the conversation in the terminal."""


@click.command(epilog=HABITS)
@click.argument("reference", metavar="[MODEL]", required=False)
@click.option("-p", "--prompt", metavar="TEXT", help="Answer this and end; - reads it from standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as one JSON object.")
@click.option("--raw", is_flag=True, help="Complete the text as it is, without the model's chat template.")
@click.option("-i", "--interactive", is_flag=True, help="Chat, even where input comes from a pipe.")
@adapter_option
@shared("--theme", metavar="NAME", help="Colours of the chat: auto, dark, light or plain.")
@common_options(model_options, generation_options, constraint_options)
def command(
    state: State,
    reference: str | None,
    prompt: str | None,
    as_json: bool,
    raw: bool,
    interactive: bool,
    use_adapter: str | None,
    theme: str | None,
    model_options: ModelOptions,
    generation: GenerationOptions,
    constraint: Constraint | None,
) -> None:
    """Answer one prompt, or chat in the terminal.

    MODEL is a folder, a file, a hub id, or demo (the default).
    """
    if interactive and (prompt is not None or as_json):
        raise click.UsageError("--interactive goes with neither --prompt nor --json")
    generation = evolve(generation, constraint=constraint)
    adapter = chosen_adapter(model_options, use_adapter)
    text = None if interactive else _one_prompt(prompt)
    if text is None and as_json:
        raise click.UsageError("--json prints one answer: give --prompt, or a prompt on standard input")
    if text is None:
        from tramontane.host import FrontendOptions

        options = FrontendOptions(
            system=generation.system,
            sampling=generation.sampling(),
            template=generation.template(),
            adapter=adapter,
            verbosity=state.verbosity,
            theme=theme,
            settings=machine_settings(model_options),
            progress=partial(progress_bar, state),
        )
        _chat(state, reference, model_options, options)
    else:
        name, settings = one_model(state, reference, model_options)
        _answer(state, name, settings, text, raw, as_json, generation, adapter)


def _one_prompt(prompt: str | None) -> str | None:
    """The prompt to answer; ``None`` where a person sits at a terminal and gave none.

    Raises:
        RequestError: Standard input was to be read, and there is nothing in it.
    """
    if prompt is not None and prompt != "-":
        return prompt
    closed = sys.stdin is None or sys.stdin.closed
    if not closed and sys.stdin.isatty() and prompt is None:
        return None
    text = "" if closed else sys.stdin.read()
    if not text.strip():
        raise RequestError("there is no prompt: standard input is empty", hint='give one with -p "..."')
    return text.rstrip("\n")


def _chat(state: State, reference: str | None, model: ModelOptions, options: FrontendOptions) -> None:
    from tramontane.host import Host

    run = state.plugins.catalogs.frontends.get(CHAT).load("run")
    with progress_bar(state) as progress:
        host = Host(state.plugins, progress)
        add_models(host, state, reference, model)
        host.blocking()  # loaded while the bar is there
    try:
        run(host, options)
    finally:
        host.close()


def _answer(
    state: State,
    name: str,
    settings: dict[str, Any],
    text: str,
    raw: bool,
    as_json: bool,
    generation: GenerationOptions,
    adapter: str | None,
) -> None:
    from tramontane.api import LLM
    from tramontane.api.service import Service

    with progress_bar(state) as progress:
        service = Service.load(name, settings, state.plugins, progress)
    with LLM.over(service) as llm:
        with _stream(state, llm, text, raw, generation, adapter) as stream:
            if not as_json:
                _write(stream)
            completion = stream.completion()
        if as_json:
            print_json(document(completion))
        elif state.verbosity > 0:
            say(summary(completion))


def _stream(
    state: State, llm: LLM, text: str, raw: bool, generation: GenerationOptions, adapter: str | None
) -> CompletionStream:
    params = llm.default_params(**{"max_tokens": None, **generation.sampling()})
    if llm.has_chat_template and not raw:
        system = [{"role": "system", "content": generation.system}] if generation.system else []
        said = [*system, {"role": "user", "content": text}]
        return llm.chat(said, params, stream=True, adapter=adapter, **generation.template())
    if state.verbosity >= 0 and not raw:
        ignored = "; the system message is left out" if generation.system else ""
        say(f"{llm.name} has no chat template: it continues the text as it is{ignored}.")
    return llm.generate(text, params, stream=True, adapter=adapter)


def _write(stream: CompletionStream) -> None:
    """Write the pieces as they come; on a terminal without control characters, which could steer it."""
    terminal = sys.stdout.isatty()
    for delta in stream:
        text = "".join(c for c in delta.text if c.isprintable() or c in "\n\t") if terminal else delta.text
        sys.stdout.write(text)
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()


def document(completion: Completion) -> dict[str, Any]:
    """The object of ``--json``."""
    usage = completion.usage
    return {
        "text": completion.text,
        "token_ids": list(completion.token_ids),
        "prompt_token_ids": list(completion.prompt_token_ids),
        "finish_reason": str(completion.finish_reason),
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "ttft_s": usage.ttft_s,
            "prompt_tps": usage.prompt_tps,
            "decode_tps": usage.decode_tps,
        },
    }


def summary(completion: Completion) -> str:
    """One line of figures for ``-v``."""
    usage = completion.usage
    return (
        f"{usage.prompt_tokens} prompt tokens ({usage.cached_tokens} cached), first token after {usage.ttft_s:.3f} s "
        f"({usage.prompt_tps:.1f} tokens/s); {usage.completion_tokens} new tokens ({usage.decode_tps:.1f} tokens/s), "
        f"ended by {completion.finish_reason}"
    )
