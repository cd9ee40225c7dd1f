# SPDX-License-Identifier: Apache-2.0
"""Other types for the weights of a loaded model, one matrix at a time.

What the checkpoint holds as floats is read from it again, so nothing is lost by having been in fewer bits meanwhile;
what it holds quantized is unpacked and packed anew. Or everything is taken from memory, as it is kept there. Planning
changes nothing; :func:`exchange_weights` must run while no step does. Memory is the model, the larger of both sizes,
and one matrix; collecting importances while planning takes the unquantized model beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import evolve, frozen
from torch import Tensor

from tramontane.build.fill import bring
from tramontane.build.plan import ModelPlan, PartPlan, WeightPlan, kept_scheme
from tramontane.build.sources import PartSource
from tramontane.errors import OutOfMemoryError, PlanError
from tramontane.load.design import without_activation_rules
from tramontane.load.importances import read_importances
from tramontane.load.model import LoadedModel, calibrated
from tramontane.load.options import LoadOptions
from tramontane.load.program import bind, capture_step
from tramontane.load.quantize import quantization_request
from tramontane.memory import format_bytes
from tramontane.progress import Counter, Progress, silent
from tramontane.quantization import Importances, quantize_plan
from tramontane.schemes import Fields
from tramontane.weights import Matrix


@frozen(kw_only=True)
class Exchange:
    """Which weights will be kept in which scheme, and where they are taken from."""

    plan: ModelPlan
    from_memory: bool
    nbytes_before: int

    @property
    def nbytes_after(self) -> int:
        """Bytes of all weights afterwards."""
        return self.plan.nbytes


def plan_exchange(
    loaded: LoadedModel, asked: LoadOptions, *, from_memory: bool = False, progress: Progress | None = None
) -> Exchange:
    """Decide on the types; may take long only where importances are collected first.

    Args:
        loaded: The model, which may be running.
        asked: ``quant``, ``organization``, ``topology``, ``imatrix`` and ``calibrate`` count. Without a type and a
            topology the weights become what they are in the checkpoint.
        from_memory: Take the weights as they are kept instead of reading them again.
        progress: Told how far collecting importances is.

    Raises:
        UnknownNameError: There is no type of that name.
        ConfigError: The topology, the organization or the importances are wrong.
        OutOfMemoryError: The larger weights do not fit beside the cache.
        PlanError: Several workers share the model.
    """
    if loaded.team is not None:
        raise PlanError("weights that several workers share cannot be exchanged", hint="load the model with that type")
    backend, plugins = loaded.backend, loaded.plugins
    importances = _importances(loaded, asked, progress)
    request = quantization_request(asked, plugins, backend, (), importances)
    plan = _plain(loaded.plan)
    if loaded.options.activations == "exact":
        plan = without_activation_rules(plan)
    if request is not None:
        plan = quantize_plan(plan, evolve(request, again=True))
    plan, _ = plugins.decisions.transform_plan(plan)
    found = Exchange(plan=plan, from_memory=from_memory, nbytes_before=loaded.plan.nbytes)
    largest = max((weight.nbytes for weight in plan.weights), default=0)
    needed, free = found.nbytes_after - found.nbytes_before + largest, backend.free_memory()
    if needed > free:
        raise OutOfMemoryError(
            f"the weights would need {format_bytes(needed)} more, and {format_bytes(free)} are free",
            hint="load the model anew with less --kv-memory, or ask for fewer bits",
        )
    return found


def exchange_weights(loaded: LoadedModel, exchange: Exchange, progress: Progress | None = None) -> None:
    """Bring the weights into their new schemes, and make kernels and the captured step anew.

    Only between steps. If it fails half-way, the model runs on with what has been exchanged by then.

    Raises:
        CheckpointError: A tensor cannot be read again.
    """
    blueprint, runner = loaded.blueprint, loaded.runner
    runner.program = runner.adapted = None  # they hold on to the old weights, as kernels do
    for bound in blueprint.ops:
        bound.kernel = None
    kept = {weight.path: weight for weight in loaded.plan.weights}
    counter = Counter(progress or silent, "quantize", exchange.plan.nbytes)
    try:
        for weight in exchange.plan.weights:
            _exchange(loaded, weight, from_memory=exchange.from_memory)
            kept[weight.path] = weight
            counter.add(weight.nbytes, weight.path)
    finally:
        loaded.plan = evolve(loaded.plan, weights=tuple(kept[weight.path] for weight in loaded.plan.weights))
        loaded.memory = evolve(loaded.memory, weights=loaded.plan.nbytes)
        bind(blueprint, loaded.backend, loaded.plugins)
        loaded.capture_note = capture_step(runner, blueprint, loaded.backend, loaded.plugins, loaded.options)


def _exchange(loaded: LoadedModel, weight: WeightPlan, *, from_memory: bool) -> None:
    matrix = loaded.blueprint.matrices[weight.path]
    schemes = tuple(part.scheme for part in weight.parts)
    packs = [part.pack for part in weight.parts]
    if schemes == matrix.schemes and (from_memory or packs == [p.pack for p in loaded.plan.weight(weight.path).parts]):
        return  # the same type again, under the same importances
    fresh = evolve(matrix, schemes=schemes, stored=None)
    stored = loaded.backend.store(fresh, loaded.plan.dtype)
    for index, part in enumerate(weight.parts):
        stored.fill(index, bring(_kept(matrix, index, part) if from_memory else part))
    matrix.schemes, matrix.stored = schemes, stored


def _kept(matrix: Matrix, index: int, part: PartPlan) -> PartPlan:
    """The part, read from the storage that holds it now."""

    def unpacked(_: Mapping[str, Tensor], __: tuple[int, ...]) -> Fields:
        return matrix.storage().unpack(index)

    return evolve(part, source=PartSource(part.path, part.shape, matrix.schemes[index], unpacked, {}))


def _plain(plan: ModelPlan) -> ModelPlan:
    """The plan with every weight as the checkpoint holds it."""

    def stored(weight: WeightPlan, part: PartPlan) -> PartPlan:
        return evolve(part, scheme=kept_scheme(part.source, weight.uses, plan.dtype), pack=None)

    weights = (evolve(weight, parts=tuple(stored(weight, part) for part in weight.parts)) for weight in plan.weights)
    return evolve(plan, weights=tuple(weights))


def _importances(loaded: LoadedModel, asked: LoadOptions, progress: Progress | None) -> Importances | None:
    given = evolve(
        loaded.options, quant=asked.quant, topology=asked.topology, imatrix=asked.imatrix, calibrate=asked.calibrate
    )
    found = calibrated(loaded.name, given, loaded.plugins, progress)
    if found is None and asked.imatrix is not None:
        found = read_importances(Path(asked.imatrix), loaded, loaded.checkpoint.config, loaded.plugins)
    return found
