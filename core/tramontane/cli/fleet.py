# SPDX-License-Identifier: Apache-2.0
"""``[[models]]``: several named models in one file of ``--config``, each with options of its own.

A table has ``name`` (what requests call it; the reference by default), ``model`` (the reference), ``aliases``,
``preload`` (load it at the start; the first one is in any case), and any model option by its long name. Options at the
top of the file are for all models; a flag on the command line wins over both. A command about one model takes its name:
``-m NAME``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click
from attrs import frozen

from tramontane.cli.loading import DEMO, announce_demo, model_settings, named_model
from tramontane.cli.options import ModelOptions, model_options
from tramontane.cli.state import State
from tramontane.errors import ConfigError

if TYPE_CHECKING:
    from tramontane.host import Host

_OPTIONS = frozenset(one.name for one in attrs.fields(ModelOptions))
_OWN = frozenset({"name", "aliases", "preload"})


@frozen(kw_only=True)
class NamedModel:
    """One model of a host."""

    name: str
    reference: str
    settings: Mapping[str, Any]
    """As for :class:`tramontane.LLM`; those alone that its table names."""
    aliases: tuple[str, ...] = ()
    preload: bool = False


def read_models(path: Path, content: Any) -> tuple[NamedModel, ...]:
    """The models that a file lists.

    Raises:
        ConfigError: A table is not one of a model; the message names the model and the key.
    """
    if not isinstance(content, list) or not all(isinstance(one, Mapping) for one in content):
        raise ConfigError(f"{path}: models must be tables", hint="write [[models]] before each model")
    found = [_model(f"{path}: models[{index}]", table) for index, table in enumerate(content)]
    names = [name for one in found for name in (one.name, *one.aliases)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{path}: names are used twice: {', '.join(twice)}", hint="names and aliases must differ")
    return tuple(found)


def one_model(state: State, argument: str | None, options: ModelOptions) -> tuple[str, dict[str, Any]]:
    """The model that a command is about, and what it is loaded with, as for :class:`tramontane.LLM`.

    It is the one that the command was given (of those that the file lists, by name or alias), else the demo model,
    which is said.

    Raises:
        click.UsageError: Two were given; or none, and the file lists models.
    """
    wanted = named_model(argument, options)
    listed = _listed(state, wanted)
    if listed is None and wanted is None and state.models:
        names = ", ".join(one.name for one in state.models)
        raise click.UsageError(f"the file of --config lists models; name the one that is meant, with -m: {names}")
    reference = listed.reference if listed else wanted or DEMO
    announce_demo(state, reference)
    return reference, _settings(listed, options) if listed else model_settings(options)


def add_models(host: Host, state: State, argument: str | None, options: ModelOptions, name: str | None = None) -> str:
    """Configure a host with the model of the command line or, where none is named there, those of the file.

    A name or alias of the file makes that model the first.

    Args:
        host: What is configured.
        state: Holds the models of the file.
        argument: The model that the command was given.
        options: The options of the command.
        name: What requests call a model of the command line; its reference by default.

    Returns:
        For people: the references or names that were added.
    """
    first = _listed(state, named_model(argument, options))
    if first is None and (not state.models or argument is not None or _given("model")):
        reference, settings = one_model(state, argument, options)
        host.add(name or reference, reference, **settings)
        return reference
    models = sorted(state.models, key=lambda one: one is not first)
    for one in models:
        host.add(one.name, one.reference, **_settings(one, options))
    for one in models:
        for alias in one.aliases:
            host.alias(alias, one.name)
    return ", ".join(one.name for one in models)


def _listed(state: State, name: str | None) -> NamedModel | None:
    """The model of the file that has this name or alias."""
    return next((one for one in state.models if name in (one.name, *one.aliases)), None)


def _settings(one: NamedModel, options: ModelOptions) -> dict[str, Any]:
    """What a model of the file is loaded with: a flag wins over its table, its table over the top of the file."""
    common = model_settings(options)
    flags = {key: value for key, value in common.items() if _given(_option_of(key))}
    return {**common, **one.settings, **flags}


def preloaded(state: State) -> tuple[str, ...]:
    """Names of the models to load at the start, beside the first."""
    return tuple(one.name for one in state.models if one.preload)


def _given(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source in (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)


def _option_of(setting: str) -> str:
    return "adapter" if setting == "adapters" else setting


def _model(where: str, table: Mapping[str, Any]) -> NamedModel:
    values = {key.replace("-", "_"): value for key, value in table.items()}
    wrong = [key for key in values if key not in _OPTIONS | _OWN]
    if wrong:
        near = difflib.get_close_matches(wrong[0], _OPTIONS | _OWN, n=1)
        hint = f"did you mean {near[0]}?" if near else "keys are name, aliases, preload and the model options"
        raise ConfigError(f"{where}: unknown keys: {', '.join(wrong)}", hint=hint)
    own = {key: values.pop(key) for key in _OWN & values.keys()}
    options = _options(where, values)
    if options.model is None:
        raise ConfigError(f"{where} names no model", hint='give it model = "PATH-OR-HUB-ID"')
    aliases = own.get("aliases", ())
    if not isinstance(aliases, Sequence) or not all(isinstance(one, str) for one in aliases):
        raise ConfigError(f"{where}: aliases must be a list of names, not {aliases!r}")
    return NamedModel(
        name=str(own.get("name", options.model)),
        reference=options.model,
        settings={key: value for key, value in model_settings(options).items() if _option_of(key) in values},
        aliases=(aliases,) if isinstance(aliases, str) else tuple(aliases),
        preload=bool(own.get("preload", False)),
    )


@click.command()
@model_options
def _reader(model_options: ModelOptions) -> ModelOptions:
    return model_options


def _options(where: str, values: dict[str, Any]) -> ModelOptions:
    """The options of one model, read as flags would be."""
    if isinstance(values.get("adapter"), Mapping):
        values["adapter"] = list(values["adapter"].items())
    try:
        with _reader.make_context("models", [], default_map=values) as context:
            found: ModelOptions = _reader.invoke(context)
            return found
    except click.UsageError as error:
        raise ConfigError(f"{where}: {error.format_message()}") from None
