# SPDX-License-Identifier: Apache-2.0
"""The core's own plugin: its defaults, registered through the same hooks as everyone else's."""

from __future__ import annotations

from collections.abc import Iterable

from tramontane.hooks import hookimpl
from tramontane.records import BackendSpec, CommandSpec, HealthCheck, LoaderSpec, QuantFormatSpec, QuantizerSpec


@hookimpl
def tramontane_loaders() -> Iterable[LoaderSpec]:
    """Folders of safetensors files, sharded or not."""
    yield LoaderSpec(
        name="safetensors",
        open="tramontane.checkpoint:open_checkpoint",
        detect="tramontane.checkpoint:recognizes",
        extensions=(".safetensors",),
    )


@hookimpl
def tramontane_quant_formats() -> Iterable[QuantFormatSpec]:
    """Models that ``tramontane quantize`` saved."""
    yield QuantFormatSpec(name="tramontane", format="tramontane.saved:SavedFormat")


@hookimpl
def tramontane_quantizers() -> Iterable[QuantizerSpec]:
    """The types that are the core's schemes packed by their own rules."""
    for name in ("afq2", "afq3", "afq4", "afq6", "afq8", "hqq4", "hqq8", "fp8", "nf4", "fp4", "int8", "mxfp4"):
        yield QuantizerSpec(name=name, make="tramontane.quantization.plain:make")


@hookimpl
def tramontane_backends() -> Iterable[BackendSpec]:
    """``torch``, the fast stock path, and ``reference``, obvious and differentiable, which nobody gets unasked.

    ``reference-invariant`` gives each row a result that depends on that row alone, bit for bit.
    """
    yield BackendSpec(
        name="torch", backend="tramontane.backends.torch:TorchBackend", devices=("cpu", "cuda", "mps"), priority=10
    )
    yield BackendSpec(
        name="reference",
        backend="tramontane.backends.reference:ReferenceBackend",
        devices=("cpu", "cuda", "mps"),
        priority=-100,
    )
    yield BackendSpec(
        name="reference-invariant",
        backend="tramontane.backends.reference:InvariantBackend",
        devices=("cpu",),
        priority=-101,
    )


@hookimpl
def tramontane_commands() -> Iterable[CommandSpec]:
    """The commands that need no plugin."""
    yield CommandSpec(
        name="run", command="tramontane.cli.run:command", help="Answer one prompt, or chat in the terminal."
    )
    yield CommandSpec(
        name="bench", command="tramontane.cli.bench:command", help="Measure a model's speed on this machine."
    )
    yield CommandSpec(
        name="plugins", command="tramontane.cli.plugins:command", help="List the plugins and what became of each."
    )
    yield CommandSpec(
        name="doctor", command="tramontane.cli.doctor:command", help="Check this machine and this installation."
    )
    yield CommandSpec(
        name="inspect",
        command="tramontane.cli.inspect:command",
        help="Show what a checkpoint holds, without loading it.",
    )
    yield CommandSpec(
        name="quantize",
        command="tramontane.cli.quantize:command",
        help="Save a model quantized, so that it loads at once.",
    )
    yield CommandSpec(
        name="perplexity",
        command="tramontane.cli.perplexity:command",
        help="Measure how well a model predicts a text, and what quantization costs.",
    )
    yield CommandSpec(
        name="tune", command="tramontane.cli.tune:command", help="Find the type of a model that suits this machine."
    )
    yield CommandSpec(
        name="pull", command="tramontane.cli.pull:command", help="Download a model; its size is said first."
    )
    yield CommandSpec(
        name="cache", command="tramontane.cli.cache:command", help="List downloaded models, or remove some."
    )
    yield CommandSpec(name="login", command="tramontane.cli.login:command", help="Log in to the model hub.")
    yield CommandSpec(
        name="completions",
        command="tramontane.cli.completions:command",
        help="Print the script that makes a shell complete commands.",
    )
    yield CommandSpec(
        name="config",
        command="tramontane.cli.config:command",
        help="Show every option's value and where it comes from.",
    )
    yield CommandSpec(
        name="from-config",
        command="tramontane.cli.from_config:command",
        help="Run what a TOML file describes, with one model or several.",
    )


@hookimpl
def tramontane_health_checks() -> Iterable[HealthCheck]:
    """What ``tramontane doctor`` looks at without any plugin."""
    for name in ("python", "torch", "processor", "memory", "disk", "compiler", "plugins"):
        yield HealthCheck(name=name, check=f"tramontane.health:check_{name}")
