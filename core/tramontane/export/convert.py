# SPDX-License-Identifier: Apache-2.0
"""From a reference and options to a file in another format, without loading: one part of a matrix at a time is read,
quantized where that is asked for, and written."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path

from attrs import define, evolve, field, frozen
from torch import Tensor

from tramontane.build.fill import bring
from tramontane.build.plan import ModelPlan, ParamPlan, PartPlan, WeightPlan
from tramontane.checkpoint import Checkpoint, MemoryTensor, TensorRef
from tramontane.config import complete_config
from tramontane.export.model import Export, ModelTensor, WriteOptions
from tramontane.load.design import Design, design, plan_weights
from tramontane.load.find import choose_backend, open_reference
from tramontane.load.foreign import translated
from tramontane.load.model import calibrated
from tramontane.load.options import LoadOptions
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
    """Those with the format's ending."""


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
    if options.quant is not None:
        options = evolve(options, quant=spec.types.get(options.quant.strip().lower(), options.quant))
    if importances is None:
        importances = calibrated(ref, options, plugins, progress)
    with open_reference(ref, options, plugins, progress) as opened:
        checkpoint = translated(opened, options, plugins)
        backend = choose_backend(options, plugins)
        made = design(checkpoint, options, plugins, backend)
        plan = plan_weights(made, checkpoint, options, plugins, backend, importances)
        counter = Counter(progress or silent, "save", plan.nbytes)
        before = _stamps(path)
        resolve(spec.write, spec)(_export(made, plan, checkpoint, plugins, counter), path, write)
        files = tuple(sorted(file for file, stamp in _stamps(path).items() if before.get(file) != stamp))
        return Converted(plan=plan, stored_nbytes=checkpoint.nbytes, files=files)


def _stamps(path: Path) -> dict[Path, tuple[int, int]]:
    """The files in a folder that may be those of ``path``, and what changes when they are written."""
    found = {file: file.stat() for file in path.parent.glob(f"{glob.escape(path.stem)}*{path.suffix}")}
    return {file: (stat.st_ino, stat.st_mtime_ns) for file, stat in found.items()}


def _export(made: Design, plan: ModelPlan, checkpoint: Checkpoint, plugins: Plugins, counter: Counter) -> Export:
    tensors = [one for weight in plan.weights for one in _parts(weight, counter)]
    tensors += [one for planned in plan.params for one in _plain(made.blueprint.params[planned.path], planned)]
    return Export(
        architecture=made.architecture,
        config=complete_config(made.config, checkpoint.config),
        parsed=made.config,
        blueprint=made.blueprint,
        plugins=plugins,
        tensors={one.name: one for one in tensors},
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
