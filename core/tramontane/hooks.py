# SPDX-License-Identifier: Apache-2.0
"""Every hook specification, each with a runnable example.

A plugin is a module with functions of these names marked ``@hookimpl``, announced in the entry-point group
``tramontane.plugins``. It may leave out any hook, and any argument of a hook. Three kinds:

* **Registration** hooks take nothing and return (or yield) records. Each is called once per plugin at start-up.
* **Decision** hooks are asked while a model is loaded.
* **Observers** are told what happened. Their errors are logged and counted, never raised.

No hook is called inside a step. This module imports pluggy and nothing else, so ``plugin.py`` files stay cheap.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from tramontane import records as r
    from tramontane.build import ModelPlan

#: The name of the marker, of the entry-point group's first half, and of the prefix of all hooks.
PROJECT = "tramontane"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


# --- registration: models and their files ----------------------------------------------------------------------------


@hookspec
def tramontane_loaders() -> Iterable[r.LoaderSpec]:
    """Kinds of checkpoint this plugin can open.

    >>> @hookimpl
    ... def tramontane_loaders():
    ...     return LoaderSpec(name="npz", open="my_plugin.npz:open_checkpoint", detect="my_plugin.npz:detect")
    """


@hookspec
def tramontane_writers() -> Iterable[r.WriterSpec]:
    """Formats this plugin can write checkpoints in.

    >>> @hookimpl
    ... def tramontane_writers():
    ...     return WriterSpec(name="npz", write="my_plugin.npz:write_checkpoint", extensions=(".npz",))
    """


@hookspec
def tramontane_architectures() -> Iterable[r.ArchitectureSpec]:
    """Model architectures, found by Hugging Face class name or by ``format:name`` of a dialect.

    >>> @hookimpl
    ... def tramontane_architectures():
    ...     yield ArchitectureSpec(
    ...         name="foo",
    ...         classes=("FooForCausalLM",),
    ...         config="my_plugin.model:FooConfig",
    ...         model="my_plugin.model:Foo",
    ...         dialects={"gguf": "my_plugin.names:GGUF"},
    ...     )
    """


@hookspec
def tramontane_quant_formats() -> Iterable[r.QuantFormatSpec]:
    """Quantization formats: how to read stored ones.

    >>> @hookimpl
    ... def tramontane_quant_formats():
    ...     return QuantFormatSpec(name="nibble", format="my_plugin.nibble:Format")
    """


@hookspec
def tramontane_quantizers() -> Iterable[r.QuantizerSpec]:
    """Types that weights can be quantized to while a model loads.

    >>> @hookimpl
    ... def tramontane_quantizers():
    ...     return QuantizerSpec(name="nibble4", make="my_plugin.nibble:make", aliases=("nibble",))
    """


@hookspec
def tramontane_encoders() -> Iterable[r.EncoderSpec]:
    """Quicker ways to pack types that weights can be quantized to.

    >>> @hookimpl
    ... def tramontane_encoders():
    ...     return EncoderSpec(name="my-device", offer="my_plugin.encode:offer", devices=("xpu",))
    """


@hookspec
def tramontane_importances() -> Iterable[r.ImportanceSpec]:
    """Files of importances: how much errors of each input of a matrix count when it is quantized.

    >>> @hookimpl
    ... def tramontane_importances():
    ...     return ImportanceSpec(
    ...         name="sums", detect="my_plugin.sums:detect", read="my_plugin.sums:read", write="my_plugin.sums:write"
    ...     )
    """


@hookspec
def tramontane_adapters() -> Iterable[r.AdapterSpec]:
    """Kinds of adapter.

    >>> @hookimpl
    ... def tramontane_adapters():
    ...     return AdapterSpec(name="ia3", open="my_plugin.ia3:open_adapter", detect="my_plugin.ia3:detect")
    """


@hookspec
def tramontane_tokenizers() -> Iterable[r.TokenizerSpec]:
    """Kinds of tokenizer file.

    >>> @hookimpl
    ... def tramontane_tokenizers():
    ...     return TokenizerSpec(name="rwkv", open="my_plugin.trie:open_tokenizer", files=("rwkv_vocab*.txt",))
    """


@hookspec
def tramontane_processors() -> Iterable[r.ProcessorSpec]:
    """What turns media into spans of a prompt and encoder inputs.

    >>> @hookimpl
    ... def tramontane_processors():
    ...     return ProcessorSpec(
    ...         name="foo-image",
    ...         processor="my_plugin.images:Processor",
    ...         classes=("FooImageProcessor",),
    ...         modalities=("image",),
    ...     )
    """


@hookspec
def tramontane_chat_formats() -> Iterable[r.ChatFormatSpec]:
    """Quirks of chat templates, parsers of tool calls and of reasoning.

    >>> @hookimpl
    ... def tramontane_chat_formats():
    ...     return ChatFormatSpec(name="foo", markers=("<|foo_call|>",), format="my_plugin.chat:FOO")
    """


# --- registration: running --------------------------------------------------------------------------------------------


@hookspec
def tramontane_backends() -> Iterable[r.BackendSpec]:
    """What runs ops on a kind of device: probe, memory, layouts, kernels, capture.

    >>> @hookimpl
    ... def tramontane_backends():
    ...     return BackendSpec(name="npu", backend="my_plugin.npu:Backend", devices=("npu",), priority=50)
    """


@hookspec
def tramontane_kernels() -> Iterable[r.KernelSpec]:
    """One op on some schemes and devices, without owning the device.

    >>> @hookimpl
    ... def tramontane_kernels():
    ...     return KernelSpec(name="norm", op="rms_norm", make="my_plugin.norm:make", devices=("cuda",), priority=10)
    """


@hookspec
def tramontane_executors() -> Iterable[r.ExecutorSpec]:
    """What runs the ranks of one engine.

    >>> @hookimpl
    ... def tramontane_executors():
    ...     return ExecutorSpec(name="ray", executor="my_plugin.ray:make")
    """


@hookspec
def tramontane_proposers() -> Iterable[r.ProposerSpec]:
    """What proposes draft tokens for speculative decoding.

    >>> @hookimpl
    ... def tramontane_proposers():
    ...     return ProposerSpec(name="n-gram", proposer="my_plugin.ngram:make")
    """


@hookspec
def tramontane_pipelines() -> Iterable[r.PipelineSpec]:
    """Tasks that are not text generation.

    >>> @hookimpl
    ... def tramontane_pipelines():
    ...     return PipelineSpec(name="foo-rerank", task="rerank", pipeline="my_plugin.rerank:make")
    """


@hookspec
def tramontane_logits_processors() -> Iterable[r.LogitsProcessorSpec]:
    """What changes logits before sampling.

    >>> @hookimpl
    ... def tramontane_logits_processors():
    ...     return LogitsProcessorSpec(name="no-repeat", processor="my_plugin.norepeat:make")
    """


# --- registration: faces ----------------------------------------------------------------------------------------------


@hookspec
def tramontane_tool_providers() -> Iterable[r.ToolProviderSpec]:
    """What brings tools that a model may call.

    >>> @hookimpl
    ... def tramontane_tool_providers():
    ...     return ToolProviderSpec(name="clock", provider="my_plugin.clock:make")
    """


@hookspec
def tramontane_frontends() -> Iterable[r.FrontendSpec]:
    """Faces of the host: ASGI applications on the common port (``app``, ``mount``), programs with a loop (``run``).

    >>> @hookimpl
    ... def tramontane_frontends():
    ...     yield FrontendSpec(name="status", app="my_plugin.status:make_app", mount="/status")
    ...     yield FrontendSpec(name="irc", run="my_plugin.irc:run")
    """


@hookspec
def tramontane_commands() -> Iterable[r.CommandSpec]:
    """Sub-commands of ``tramontane``; a lazy ``click.Command`` and the line that ``--help`` shows.

    >>> @hookimpl
    ... def tramontane_commands():
    ...     return CommandSpec(name="haiku", command="my_plugin.haiku:command", help="Write a haiku about a model.")
    """


@hookspec
def tramontane_health_checks() -> Iterable[r.HealthCheck]:
    """Checks of ``tramontane doctor``.

    >>> @hookimpl
    ... def tramontane_health_checks():
    ...     return HealthCheck(name="npu-driver", check="my_plugin.health:driver")
    """


# --- decisions --------------------------------------------------------------------------------------------------------


@hookspec(firstresult=True)
def tramontane_resolve_model(ref: str, options: Mapping[str, object]) -> str | os.PathLike[str] | None:
    """Turn a model reference into a local path; the first plugin that does not return None decides.

    It is asked before the reference is looked for on disk and on the hub. ``options`` holds what the person gave beside
    the reference (``revision``, ``offline`` ...).

    >>> @hookimpl
    ... def tramontane_resolve_model(ref):
    ...     return "/models/house" if ref == "house" else None
    """


@hookspec
def tramontane_transform_plan(plan: ModelPlan) -> ModelPlan:
    """Return the plan to use instead of ``plan``, or the same one.

    Plugins are asked in the order of their names, each with what the one before returned; ``--explain-plan`` prints who
    changed what.

    >>> @hookimpl
    ... def tramontane_transform_plan(plan):
    ...     return plan
    """


# --- observers --------------------------------------------------------------------------------------------------------


@hookspec
def tramontane_engine_started(engine: r.EngineInfo) -> None:
    """An engine is ready to take requests.

    >>> @hookimpl
    ... def tramontane_engine_started(engine):
    ...     print(f"{engine.model} is ready")
    """


@hookspec
def tramontane_engine_stopped(engine: r.EngineInfo) -> None:
    """An engine has shut down.

    >>> @hookimpl
    ... def tramontane_engine_stopped(engine):
    ...     print(f"{engine.model} has stopped")
    """


@hookspec
def tramontane_request_finished(request: r.RequestSummary) -> None:
    """A request has ended, however it ended.

    >>> @hookimpl
    ... def tramontane_request_finished(request):
    ...     print(f"{request.request_id}: {request.completion_tokens} tokens")
    """


@hookspec
def tramontane_metrics(model: str, metrics: Mapping[str, float]) -> None:
    """A reading of an engine's counters and gauges, by name; every few seconds at most.

    >>> @hookimpl
    ... def tramontane_metrics(model, metrics):
    ...     print(model, metrics.get("running", 0.0))
    """
