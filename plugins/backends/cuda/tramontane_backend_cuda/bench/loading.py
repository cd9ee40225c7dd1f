# SPDX-License-Identifier: Apache-2.0
"""From files in the page cache to the first token, captures included."""

from __future__ import annotations

import gc
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from tramontane.backends.base import Backend
from tramontane.build import Blueprint, Builder
from tramontane.config import read_config
from tramontane.engine import EngineConfig, EngineCore
from tramontane.load import LoadOptions, load_model
from tramontane.ops import Runtime
from tramontane.plugins import Plugins
from tramontane.requests import EngineRequest, SamplingParams
from tramontane_backend_cuda.bench.clock import Clock
from tramontane_backend_cuda.bench.limits import Line
from tramontane_backend_cuda.bench.models import EIGHT_B, TINY, Shape

GOAL_S = 4.0


def measure(backend: Backend, plugins: Plugins, clock: Clock) -> Iterator[Line]:
    """Write a checkpoint, load it twice (the first time fills the page cache) and answer."""
    shape = EIGHT_B if clock.real else TINY
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        nbytes = write(path, shape, plugins, backend.device)
        for attempt in ("first", "again"):
            seconds, first = _load(path, plugins, backend)
            what = f"{shape.name} bf16, {nbytes / 1e9:.1f} GB from the page cache ({attempt})"
            goal = GOAL_S if attempt == "again" and clock.real else None
            yield Line(section="load", what=f"{what}: weights and plan", value=seconds, unit="s", lower_is_better=True)
            yield Line(
                section="load",
                what=f"{what}: to the first token",
                value=first,
                unit="s",
                goal=goal,
                lower_is_better=True,
            )


def _load(path: Path, plugins: Plugins, backend: Backend) -> tuple[float, float]:
    begun = time.perf_counter()
    small = EngineConfig(max_num_seqs=8, max_batched_tokens=64)
    options = LoadOptions(device=str(backend.device), backend=backend.name, max_model_len=256, engine=small)
    loaded = load_model(str(path), options, plugins=plugins)
    seconds = time.perf_counter() - begun
    core = EngineCore(loaded.runner, loaded.engine)
    params = SamplingParams(max_tokens=4, temperature=0, ignore_eos=True)
    core.add(EngineRequest(id="first", prompt_token_ids=(3, 4, 5), sampling=params))
    first = None
    while core.has_work:
        deltas = core.next_deltas()
        if any(delta.error for delta in deltas):
            raise RuntimeError(f"the engine failed: {deltas}")
        if first is None and any(delta.token_ids for delta in deltas):
            first = time.perf_counter() - begun
    loaded.close()
    del loaded, core
    gc.collect()
    if backend.device.type == "cuda":
        torch.cuda.empty_cache()
    return seconds, first or 0.0


def write(path: Path, shape: Shape, plugins: Plugins, device: torch.device) -> int:
    """A checkpoint of random bfloat16 weights; returns its bytes."""
    spec = plugins.catalogs.architectures.get(shape.config["architectures"][0])
    blueprint = Blueprint(Runtime(torch.device("cpu")), torch.bfloat16, torch.bfloat16, max_positions=16)
    spec.load("model")(read_config(spec.load("config"), shape.config), Builder(blueprint))
    (path / "config.json").write_text(json.dumps({**shape.config, "dtype": "bfloat16"}), encoding="utf-8")
    tensors = {
        f"{part.path}.weight": torch.randn(
            part.out_features, matrix.in_features, device=device, dtype=torch.bfloat16
        ).mul_(matrix.in_features**-0.5)
        for matrix in blueprint.matrices.values()
        for part in matrix.parts
    }
    for param in blueprint.params.values():
        for source in param.sources:
            tensors[f"{source.path}.{source.field}"] = torch.ones(source.shape, dtype=torch.bfloat16)
    host = {name: one.cpu() for name, one in tensors.items()}
    save_file(host, path / "model.safetensors", metadata={"format": "pt"})
    return sum(one.nbytes for one in host.values())
