# SPDX-License-Identifier: Apache-2.0
"""Collecting importances: the unquantized model reads a text, and every matrix's inputs are squared and summed.

The text is cut as perplexity is measured: chunks of one length, each begun by the beginning-of-sequence token. Ops say
which activations meet which matrix (:meth:`~tramontane.ops.Op.matrix_inputs`), so no model takes part.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import evolve, field, frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.engine import EngineConfig, EngineCore
from tramontane.errors import ConfigError, EngineError
from tramontane.evaluate import chunks
from tramontane.load.importances import write_importances
from tramontane.load.model import LoadedModel, load_model
from tramontane.load.options import LoadOptions
from tramontane.ops import BoundOp, Kernel
from tramontane.plugins import Plugins
from tramontane.progress import Counter, Progress, silent
from tramontane.quantization import Importances, Statistics, Sums, importances_of
from tramontane.requests import EngineRequest, SamplingParams, Task
from tramontane.tokenizer import Tokenizer
from tramontane.weights import Matrix

CHUNK = 512
"""Tokens of a chunk, as llama.cpp has them."""


@frozen(kw_only=True)
class Calibration:
    """What was collected from a text, and from which model."""

    statistics: Statistics = field(repr=False)
    model: LoadedModel = field(repr=False)
    text: Path
    chunks: int
    chunk_tokens: int

    @property
    def importances(self) -> Importances:
        """What quantizing weighs by."""
        return importances_of(self.statistics)

    def save(self, path: Path, plugins: Plugins) -> None:
        """Write a file of importances.

        Raises:
            ConfigError: No plugin writes files of that ending.
            CheckpointError: It cannot be written.
        """
        write_importances(
            path, self.statistics, self.model, self.model.checkpoint.config, plugins,
            chunks=self.chunks, chunk_tokens=self.chunk_tokens, text=self.text.name,
        )  # fmt: skip


def calibrate(
    ref: str,
    text: Path,
    options: LoadOptions,
    plugins: Plugins,
    progress: Progress | None = None,
    *,
    chunk: int = CHUNK,
    limit: int | None = None,
) -> Calibration:
    """Load a model as it is stored, let it read a text, and collect.

    Raises:
        ConfigError: The text cannot be read, or the model has no tokenizer.
        RequestError: The text is shorter than a chunk.
        TramontaneError: As :func:`tramontane.load.load_model`.
    """
    words = _read(text)
    blocks = 2 + 2 * -(-chunk // EngineConfig().block_tokens)
    engine = EngineConfig(max_num_seqs=1, max_batched_tokens=chunk, num_blocks=blocks, prefix_cache=False)
    loaded = load_model(
        ref,
        evolve(options, quant=None, topology=None, imatrix=None, calibrate=None, capture=False, engine=engine),
        plugins=plugins,
        progress=progress,
    )
    try:
        if loaded.text.tokenizer is None:
            raise ConfigError("collecting importances needs a tokenizer, and this model has none")
        ids, bos = _encoded(loaded.text.tokenizer, words)
        parts = list(chunks(ids, chunk, bos, limit))
        statistics = collect(loaded, parts, progress)
    finally:
        loaded.close()
    return Calibration(statistics=statistics, model=loaded, text=text, chunks=len(parts), chunk_tokens=chunk)


def collect(loaded: LoadedModel, parts: Sequence[Sequence[int]], progress: Progress | None = None) -> Statistics:
    """Sums over texts that a loaded, uncaptured model reads.

    Raises:
        EngineError: A step failed, or an activation is no finite number.
    """
    sums = {
        matrix.path: Sums.zero(matrix.experts or 1, matrix.in_features)
        for matrix in loaded.blueprint.matrices.values()
        if matrix.uses & {"linear", "experts"}
    }
    watched = [bound for bound in loaded.blueprint.ops if any(isinstance(one, Matrix) for one in bound.weights)]
    kernels = [bound.kernel for bound in watched]
    counter = Counter(progress or silent, "calibrate", len(parts))
    try:
        for bound in watched:
            bound.kernel = _watching(bound, sums)
        core = EngineCore(loaded.runner, loaded.engine)
        for number, part in enumerate(parts):
            _read_through(core, number, part)
            counter.add(1, f"chunk {number + 1}")
    finally:
        for bound, kernel in zip(watched, kernels, strict=True):
            bound.kernel = kernel
    for path, found in sums.items():
        if not bool(found.squares_XI.isfinite().all()):
            raise EngineError(f"activations before {path} are not finite, so importances are not either")
    seen = {path: found for path, found in sums.items() if bool(found.counts_X.any())}
    return {part.path: seen[path] for path in seen for part in loaded.blueprint.matrices[path].parts}


def _watching(bound: BoundOp, sums: dict[str, Sums]) -> Kernel:
    """The op's kernel, with its matrices' inputs summed first."""
    kernel = bound.kernel
    if kernel is None:
        raise EngineError(f"{bound.path} has no kernel yet")

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        for index, expert, x_NI in bound.op.matrix_inputs(bound.weights, *inputs):
            found = sums.get(bound.weights[index].path)
            if found is not None:
                found.add(expert or 0, x_NI)
        kernel(ctx, inputs, outputs)

    return run


def _read_through(core: EngineCore, number: int, part: Sequence[int]) -> None:
    request = EngineRequest(
        id=f"calibrate-{number}", prompt_token_ids=tuple(part), sampling=SamplingParams(max_tokens=1), task=Task.LOGITS
    )
    core.add(request)
    while core.has_work:
        for delta in core.step():
            if delta.error:
                raise EngineError(f"chunk {number + 1} could not be read: {delta.error}")


def _encoded(tokenizer: Tokenizer, text: str) -> tuple[list[int], int | None]:
    """Ids without special ones, and the beginning-of-sequence id if prompts get one."""
    whole, body = tokenizer.encode("a"), tokenizer.encode("a", add_special=False)
    return tokenizer.encode(text, add_special=False), whole[0] if whole[:1] != body[:1] else None


def _read(text: Path) -> str:
    try:
        return text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the text {text}: {error}") from error
