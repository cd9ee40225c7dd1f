# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, and where their values come from.

A value is looked for in this order: the flag, the variable ``TRAMONTANE_<NAME>``, the file of ``--config``, the
default. Each group of options reaches its command as one frozen record. This module imports click and nothing of the
engine; the file is read by :mod:`tramontane.cli.config_file`.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import attrs
import click
from attrs import frozen

from tramontane.errors import ConfigError
from tramontane.grammar import Constraint

F = TypeVar("F", bound=Callable[..., Any])

ENVIRONMENT = "TRAMONTANE_"
"""What the variables of options begin with."""

HABITS = "Model and sampling options may also be set as TRAMONTANE_<OPTION>, or in the file of --config."
"""The line under the options in a command's help."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", re.IGNORECASE)


def byte_size(value: str | int) -> int:
    """A number of bytes: ``4GiB``, ``500MB``, ``2G`` or a plain number."""
    match = _SIZE.fullmatch(str(value))
    if match is None:
        raise click.BadParameter(f"{value!r} is not a size such as 4GiB, 500MB or a number of bytes")
    units = _BINARY if match[3] else _UNITS
    return int(float(match[1]) * units[match[2].upper()])


def named_path(value: str | tuple[str, str]) -> tuple[str, str]:
    """``NAME=PATH``."""
    if isinstance(value, tuple):
        return value
    name, mark, path = value.partition("=")
    if not (mark and name and path):
        raise click.BadParameter(f"{value!r} is not of the form NAME=PATH")
    return name, path


def whole_numbers(low: int) -> Callable[[Any], tuple[int, ...]]:
    """Whole numbers, separated by commas or in a list, each at least ``low``; repeated ones count once."""

    def numbers(value: Any) -> tuple[int, ...]:
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, Iterable) else [value]
        try:
            found = tuple(dict.fromkeys(int(part) for part in parts))
        except (TypeError, ValueError):
            raise click.BadParameter(f"{value!r} is not a list of whole numbers such as 1,8") from None
        if not found or min(found) < low:
            raise click.BadParameter(f"{value!r}: each number must be at least {low}")
        return found

    return numbers


def shared(*declarations: str, **attributes: Any) -> Callable[[F], F]:
    """An option that also reads its environment variable, named like the long flag."""
    long = next(part for part in declarations if part.startswith("--")).split("/")[0]
    variable = ENVIRONMENT + long.removeprefix("--").replace("-", "_").upper()
    return click.option(*declarations, envvar=variable, **attributes)


@frozen(kw_only=True)
class ModelOptions:
    """Which model, and how it is loaded and run. ``None`` leaves the choice to the engine."""

    model: str | None = None
    revision: str | None = None
    quant: str | None = None
    organization: str | None = None
    device: str | None = None
    device_map: str | None = None
    dtype: str | None = None
    max_model_len: int | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    chat_format: str | None = None
    arch: str | None = None
    adapter: tuple[tuple[str, str], ...] = ()
    max_adapters: int | None = None
    topology: str | None = None
    activations: str | None = None
    imatrix: str | None = None
    calibrate: str | None = None
    weights_cache: str | None = None
    kv_dtype: str | None = None
    kv_memory: int | None = None
    max_num_seqs: int | None = None
    max_batched_tokens: int | None = None
    prefix_cache: bool = True
    backend: str | None = None
    capture: bool | None = None
    overlap: bool | None = None
    stream_interval: float | None = None
    threads: int | None = None
    tensor_parallel: int | None = None
    expert_parallel: bool = False
    token_source: str | None = None
    offline: bool = False
    allow_pickle: bool = False


@frozen(kw_only=True)
class SourceOptions:
    """Where a model's files come from."""

    revision: str | None = None
    quant: str | None = None
    token_source: str | None = None
    offline: bool = False
    allow_pickle: bool = False


@frozen(kw_only=True)
class GenerationOptions:
    """How answers are sampled. ``None`` leaves a parameter to the model's own defaults."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    stop: tuple[str, ...] = ()
    system: str | None = None
    seed: int | None = None
    thinking: bool | None = None
    reasoning_effort: str | None = None
    constraint: Constraint | None = attrs.field(default=None, metadata={"option": False})
    """The form of the answer; of commands that have :mod:`tramontane.cli.constraint`'s options."""

    def sampling(self) -> dict[str, Any]:
        """The sampling parameters that were given, by name."""
        given = {
            name: value
            for name, value in attrs.asdict(self, recurse=False).items()
            if name not in ("system", "thinking", "reasoning_effort") and value not in (None, ())
        }
        return {**given, "stop": self.stop} if self.stop else given

    def template(self) -> dict[str, Any]:
        """The variables of the chat template that were given, by name."""
        given = {"enable_thinking": self.thinking, "reasoning_effort": self.reasoning_effort}
        return {name: value for name, value in given.items() if value is not None}


_WHOLE = click.IntRange(min=1)

_SOURCE = (
    shared("--revision", metavar="REV", help="Branch, tag or commit on the hub."),
    shared("--quant", metavar="TYPE", help="Stored format to pick, or type to quantize to; a number means bits."),
    shared("--token-source", metavar="SOURCE", help="Hub token: cache, none, env:NAME, path:FILE or literal:TOKEN."),
    shared("--offline", is_flag=True, help="Use local files only."),
    shared("--allow-pickle", is_flag=True, help="Load weights stored as pickle, which can run code."),
)

_MODEL = (
    shared("-m", "--model", metavar="MODEL", help="A folder, a file, a hub id, or demo."),
    *_SOURCE,
    shared("--organization", metavar="NAME", help="What is quantized: default (all matrices) or moqe (experts)."),
    shared("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps ..."),
    shared("--device-map", metavar="MAP", help="Layers of each device: auto; cuda:0=16,cuda:1=rest."),
    shared("--dtype", metavar="TYPE", help="auto, float32, bfloat16 or float16."),
    shared("--max-model-len", type=_WHOLE, metavar="N", help="Longest sequence in tokens."),
    shared("--tokenizer", metavar="PATH", help="Another tokenizer than the model's."),
    shared("--chat-template", metavar="FILE", help="Another chat template than the model's."),
    shared("--chat-format", metavar="NAME", help="How the model writes tool calls, if its template does not tell."),
    shared("--arch", metavar="NAME", help="Run the checkpoint as this architecture."),
    shared("--adapter", type=named_path, multiple=True, metavar="NAME=PATH", help="Load an adapter; may be repeated."),
    shared("--max-adapters", type=_WHOLE, metavar="N", help="Most adapters that are loaded at a time."),
    shared("--topology", metavar="FILE", help="Per layer: quantization and device."),
    shared(
        "--activations", metavar="RULE", help="Round activations as the checkpoint says (stored), or never (exact)."
    ),
    shared("--imatrix", metavar="FILE", help="Importances to quantize by, as llama.cpp collects them."),
    shared("--calibrate", metavar="FILE", help="A text to collect importances from before quantizing."),
    shared("--weights-cache", metavar="DIR", help="Keep the weights' layout there, for faster starts."),
    shared(
        "--kv-dtype", metavar="TYPE", help="Type of the key-value cache: auto, float32, bfloat16, float16, fp8, int8."
    ),
    shared("--kv-memory", type=byte_size, metavar="SIZE", help="Memory for the key-value cache, such as 4GiB."),
    shared("--max-num-seqs", type=_WHOLE, metavar="N", help="Most sequences that run at a time."),
    shared("--max-batched-tokens", type=_WHOLE, metavar="N", help="Most tokens of one step."),
    shared("--prefix-cache/--no-prefix-cache", default=True, help="Reuse the cache of equal beginnings."),
    shared("--backend", metavar="NAME", help="What runs the model's operations."),
    shared("--capture/--no-capture", default=None, help="Record the model's step once and replay it."),
    shared("--overlap/--no-overlap", default=None, help="Launch a step before the last one's tokens are read."),
    shared(
        "--stream-interval",
        type=click.FloatRange(0, 10),
        metavar="SECONDS",
        help="Between two pieces of a stream; 0.016 by default, 0 for each token.",
    ),
    shared("--threads", type=_WHOLE, metavar="N", help="Threads on the CPU."),
    shared("--tensor-parallel", type=_WHOLE, metavar="N", help="Devices that share every layer of the model."),
    shared("--expert-parallel", is_flag=True, help="With --tensor-parallel: whole experts on each device."),
)

_GENERATION = (
    shared("--max-tokens", type=_WHOLE, metavar="N", help="Most new tokens; up to the context if not given."),
    shared("--temperature", type=float, metavar="T", help="Randomness; 0 takes the most likely token."),
    shared("--top-k", type=int, metavar="K", help="Choose among the K most likely tokens; 0 for all."),
    shared("--top-p", type=float, metavar="P", help="Choose among the tokens that make up P of the probability."),
    shared("--min-p", type=float, metavar="P", help="Drop tokens less likely than P times the most likely one."),
    click.option("--stop", multiple=True, metavar="TEXT", help="End the answer at this text; may be repeated."),
    shared("--system", metavar="TEXT", help="System message."),
    shared("--seed", type=int, metavar="N", help="Make sampling repeatable."),
    shared("--thinking/--no-thinking", default=None, help="Reason before answering, where the template can switch it."),
    shared("--reasoning-effort", metavar="LEVEL", help="How much: low, medium, high, or what the template knows."),
)


def with_options(function: F, options: Sequence[Callable[[F], F]]) -> F:
    """A command's function with options, which its help lists in this order."""
    for option in reversed(options):
        function = option(function)
    return function


def _record(record: type[Any], parameter: str, options: tuple[Callable[[Any], Any], ...]) -> Callable[[F], F]:
    """A decorator that adds ``options`` to a command's function and passes them to it as one ``record``."""
    names = [field.name for field in attrs.fields(record) if field.metadata.get("option", True)]

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def gathered(*args: Any, **values: Any) -> Any:
            own = {name: values.pop(name) for name in names}
            return function(*args, **values, **{parameter: record(**own)})

        return cast("F", with_options(gathered, options))

    return decorate


#: Adds the shared model options; the command gets ``model_options: ModelOptions``.
model_options = _record(ModelOptions, "model_options", _MODEL)

#: Adds the options about where files come from; the command gets ``source: SourceOptions``.
source_options = _record(SourceOptions, "source", _SOURCE)

#: Adds the generation options; the command gets ``generation: GenerationOptions``.
generation_options = _record(GenerationOptions, "generation", _GENERATION)


def log_option(function: F) -> F:
    """Add ``--log-file FILE``: what the program says about itself is appended there too, with times."""
    return shared(
        "--log-file",
        type=click.Path(dir_okay=False),
        expose_value=False,
        callback=_log_to,
        metavar="FILE",
        help="Append the log to this file.",
    )(function)


def _log_to(context: click.Context, parameter: click.Parameter, path: str | None) -> None:
    if path is None:
        return
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the log to {path}: {error.strerror}") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger("tramontane").addHandler(handler)

    def close() -> None:
        logging.getLogger("tramontane").removeHandler(handler)
        handler.close()

    context.call_on_close(close)
