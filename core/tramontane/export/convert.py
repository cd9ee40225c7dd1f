# SPDX-License-Identifier: Apache-2.0
"""From a reference and options to a file in another format, without loading: one part of a matrix at a time is read,
quantized where that is asked for, and written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attrs import define, field, frozen
from torch import Tensor

from tramontane.build.fill import bring
from tramontane.build.plan import ModelPlan, ParamPlan, PartPlan, WeightPlan
from tramontane.checkpoint import MemoryTensor, TensorRef
from tramontane.config import complete_config
from tramontane.export.model import Export, ModelTensor, WriteOptions
from tramontane.load.options import LoadOptions
from tramontane.load.planned import Planned, planned
from tramontane.plugins import Plugins
from tramontane.progress import Counter, Progress, silent
from tramontane.quantization import Importances
from tramontane.records import WriterSpec, resolve
from tramontane.schemes import Dense
from tramontane.tensors import AXES
from tramontane.weightmap import tensor_name
from tramontane.weights import Param


@frozen(kw_only=True)
class Converted:
    """What was written."""

    plan: ModelPlan
    stored_nbytes: int
    """Bytes of the tensors that it was made from."""
    files: tuple[Path, ...]
    """Those with weights."""


@define(eq=False)
class _Part:
    """A part of a matrix, quantized once for all its fields: each is kept until it is asked for."""

    plan: PartPlan
    counter: Counter
    _waiting: dict[str, Tensor] = field(factory=dict, init=False)

    def take(self, name: str) -> Tensor:
        """One of the canonical fields."""
        if name not in self._waiting:
            self._waiting = dict(bring(self.plan))
        found = self._waiting.pop(name).cpu()
        self.counter.add(found.nbytes, self.plan.path)
        return found


@define(kw_only=True, eq=False)
class _Brought(TensorRef):
    """One canonical field of a part, made when it is read."""

    part: _Part = field(repr=False)

    def read(self, index: tuple[slice, ...] | None = None, out: Tensor | None = None) -> Tensor:
        """See :meth:`TensorRef.read`."""
        whole = self.part.take(self.name)
        wanted = whole if index is None else whole[index]
        return wanted if out is None else out.copy_(wanted)


def convert_model(
    ref: str,
    path: Path,
    options: LoadOptions,
    plugins: Plugins,
    *,
    form: str,
    write: WriteOptions,
    progress: Progress | None = None,
    importances: Importances | None = None,
) -> Converted:
    """Write a model, quantized as the load options say, to a file in the format ``form``. The type may be one that the
    format holds in a form of its own; a format may make several files of the one that is named.

    Raises:
        TramontaneError: As :func:`tramontane.load.load_model` and :func:`tramontane.export.write_model`.
    """
    spec: WriterSpec = plugins.catalogs.writers.get(form)
    with planned(ref, options, plugins, progress, importances=importances, forms=spec.types) as one:
        counter = Counter(progress or silent, "save", one.plan.nbytes)
        files = resolve(spec.write, spec)(_export(one, plugins, counter), path, write)
        return Converted(plan=one.plan, stored_nbytes=one.checkpoint.nbytes, files=tuple(files))


def _export(one: Planned, plugins: Plugins, counter: Counter) -> Export:
    made, plan, checkpoint = one.made, one.plan, one.checkpoint
    tensors = [tensor for weight in plan.weights for tensor in _parts(weight, counter)]
    tensors += [tensor for param in plan.params for tensor in _plain(made.blueprint.params[param.path], param)]
    return Export(
        architecture=made.architecture,
        config=complete_config(made.config, checkpoint.config),
        parsed=made.config,
        blueprint=made.blueprint,
        plugins=plugins,
        tensors={tensor.name: tensor for tensor in tensors},
        files=checkpoint.files,
        metadata=checkpoint.metadata,
        dialect=checkpoint.dialect,
    )


def _parts(weight: WeightPlan, counter: Counter) -> Iterator[ModelTensor]:
    for part in weight.parts:
        stored = part.source.scheme
        scheme = stored if isinstance(part.scheme, Dense) and isinstance(stored, Dense) else part.scheme
        brought = _Part(part, counter)
        fields = {
            name: _Brought(name=name, dtype=one.dtype, shape=one.shape, part=brought)
            for name, one in scheme.fields(part.shape).items()
        }
        name = tensor_name(part.path, "weight")
        yield ModelTensor(name, part.shape, AXES[-len(part.shape) :], fields, scheme, weight.uses)


def _plain(param: Param, planned: ParamPlan) -> Iterator[ModelTensor]:
    for wanted, source in zip(param.sources, planned.sources, strict=True):
        name = tensor_name(wanted.path, wanted.field)
        axes = ("expert", "out") if len(wanted.shape) == 2 else ("out",)[: len(wanted.shape)]
        yield ModelTensor(name, wanted.shape, axes, {"weight": MemoryTensor.of(name, source.read())})
