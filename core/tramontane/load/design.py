# SPDX-License-Identifier: Apache-2.0
"""A model on paper: modules over a blueprint, cache layout, plan of weights. Reads configuration and headers only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import define, evolve

from tramontane.backends.base import Backend
from tramontane.build import Blueprint, Builder
from tramontane.build.formats import StoredFormat, detect_formats
from tramontane.build.plan import ModelPlan, make_plan
from tramontane.build.sources import Sources
from tramontane.cache.entries import parse_cache_dtype
from tramontane.cache.spec import CacheLayout, plan_layout
from tramontane.checkpoint import CANONICAL, Checkpoint
from tramontane.config import parse_dtype, read_config, read_dtype
from tramontane.dialects import HUGGING_FACE, dialect_of
from tramontane.distributed import Share, check_supported
from tramontane.errors import ConfigError
from tramontane.load.find import find_architecture
from tramontane.load.importances import read_importances
from tramontane.load.options import LoadOptions
from tramontane.load.quantize import quantization_request
from tramontane.ops import Runtime
from tramontane.plugins import Plugins
from tramontane.quantization import Importances, quantize_plan
from tramontane.records import ArchitectureSpec, resolve
from tramontane.runner import Model
from tramontane.weightmap import WeightMap, choose

DEFAULT_MAX_MODEL_LEN = 32_768
"""A model trained on more is served up to this unless ``max_model_len`` asks for more."""


@define(eq=False)
class Design:
    """A model built on paper: modules, blueprint and plan, nothing allocated."""

    architecture: ArchitectureSpec
    config: Any
    model: Model
    blueprint: Blueprint
    max_model_len: int
    layout: CacheLayout


def design(
    checkpoint: Checkpoint, options: LoadOptions, plugins: Plugins, backend: Backend, share: Share | None = None
) -> Design:
    """Build the model's modules over a blueprint; reads the configuration and no weights.

    Args:
        share: What this worker holds, where several share the model.

    Raises:
        PlanError: The model cannot be shared by so many workers.
    """
    share = share or Share()
    architecture = find_architecture(checkpoint, options, plugins)
    check_supported(architecture.name, architecture.tensor_parallel, share)
    where = (
        f"{checkpoint.path}/config.json" if checkpoint.dialect in (HUGGING_FACE, CANONICAL) else str(checkpoint.path)
    )
    config = read_config(resolve(architecture.config, architecture), checkpoint.config, where)
    length = _max_model_len(config, options)
    dtype = _dtype(options.dtype, checkpoint, backend)
    cache_dtype = _cache_dtype(options, dtype, checkpoint)
    blueprint = Blueprint(Runtime(backend.device), dtype, cache_dtype, length, share=share)
    model = resolve(architecture.model, architecture)(config, Builder(blueprint))
    layout = plan_layout({name: slot.spec for name, slot in blueprint.caches.items()}, options.engine.block_tokens)
    return Design(architecture, config, model, blueprint, length, layout)


def plan_weights(
    made: Design,
    checkpoint: Checkpoint,
    options: LoadOptions,
    plugins: Plugins,
    backend: Backend,
    importances: Importances | None = None,
    forms: Mapping[str, str] | None = None,
) -> ModelPlan:
    """Find every weight of the design in the checkpoint, quantize what is asked for, then let plugins change the plan.

    Args:
        importances: What quantizing weighs by; from the file that the options name, if not given.
        forms: Types that are wanted in another form: see :attr:`tramontane.records.WriterSpec.types`.

    Raises:
        CheckpointError: Tensors are missing, unexpected or mis-shaped; all are named.
    """
    blueprint = made.blueprint
    names, formats = _weight_map(made, checkpoint), _formats(checkpoint, plugins)
    sources = Sources.of(checkpoint, names, formats, blueprint.tied)
    plan = make_plan(made.architecture.name, blueprint, sources, checkpoint)
    if options.activations == "exact":
        plan = without_activation_rules(plan)
    elif options.activations != "stored":
        raise ConfigError(f"there is no rule {options.activations!r} for activations", hint="known: stored, exact")
    if importances is None and options.imatrix is not None:
        importances = read_importances(Path(options.imatrix), made, checkpoint.config, plugins)
    stored = [*(bound.name for bound in formats), *checkpoint.types]
    request = quantization_request(options, plugins, backend, stored, importances, forms)
    if request is not None:
        plan = quantize_plan(plan, request)
    return plugins.decisions.transform_plan(plan)[0]


def without_activation_rules(plan: ModelPlan) -> ModelPlan:
    """The plan whose products see activations as they are."""
    weights = (
        evolve(weight, parts=tuple(evolve(part, scheme=part.scheme.plain()) for part in weight.parts))
        for weight in plan.weights
    )
    return evolve(plan, weights=tuple(weights))


def weight_maps(architecture: ArchitectureSpec, config: Mapping[str, Any]) -> tuple[WeightMap, ...]:
    """The maps between an architecture's names and those of its Hugging Face checkpoints; the usual one first."""
    if architecture.weight_map is None:
        return (WeightMap(),)
    found = resolve(architecture.weight_map, architecture)
    found = found if isinstance(found, WeightMap) else found(config)
    return (found,) if isinstance(found, WeightMap) else tuple(found)


def _weight_map(made: Design, checkpoint: Checkpoint) -> WeightMap:
    """How the checkpoint's names differ from the model's: by its dialect, or by the architecture's own map."""
    if checkpoint.dialect == CANONICAL:
        return WeightMap()
    if checkpoint.dialect != HUGGING_FACE:
        return dialect_of(made.architecture, checkpoint.dialect).weight_map(checkpoint.config)
    maps = weight_maps(made.architecture, checkpoint.config)
    others = (one.as_the_model_has_them() for one in maps)
    maps = (*maps, *(one for one in others if one not in maps))
    parts = (part for matrix in made.blueprint.matrices.values() for part in matrix.parts)
    return maps[0] if len(maps) == 1 else choose(maps, [(part.path, "weight") for part in parts], checkpoint.tensors)


def _formats(checkpoint: Checkpoint, plugins: Plugins) -> list[StoredFormat]:
    """The quantization formats that the checkpoint uses."""
    return detect_formats(checkpoint, [resolve(spec.format, spec)() for spec in plugins.catalogs.quant_formats])


def _max_model_len(config: Any, options: LoadOptions) -> int:
    trained = getattr(config, "max_position_embeddings", None)
    if options.max_model_len is not None:
        if options.max_model_len < 1:
            raise ConfigError(f"max_model_len must be above 0, got {options.max_model_len}")
        return options.max_model_len
    return min(trained or DEFAULT_MAX_MODEL_LEN, DEFAULT_MAX_MODEL_LEN)


def _cache_dtype(options: LoadOptions, dtype: torch.dtype, checkpoint: Checkpoint) -> torch.dtype:
    """The activations' type, but for models that run in float32 unasked while their weights are narrower.

    Such are most GGUF files: their norms are float32, their matrices are not. Half the width is half of what attention
    reads of a long context, and float16 rounds far less than the weights were.
    """
    if options.kv_dtype != "auto":
        return parse_cache_dtype(options.kv_dtype)
    if options.dtype != "auto" or dtype is not torch.float32:
        return dtype
    stored = [ref for ref in checkpoint.tensors.values() if len(ref.shape) > 1]
    wide = sum(ref.nbytes for ref in stored if ref.dtype is torch.float32)
    return torch.float16 if 2 * wide < sum(ref.nbytes for ref in stored) else dtype


def _dtype(asked: str, checkpoint: Checkpoint, backend: Backend) -> torch.dtype:
    if asked != "auto":
        return parse_dtype(asked)
    stored = read_dtype(checkpoint.config)
    if stored is None:
        floats = [ref.dtype for ref in checkpoint.tensors.values() if ref.dtype.is_floating_point]
        stored = max(set(floats), key=floats.count, default=torch.bfloat16)
    return backend.choose_dtype(stored)
