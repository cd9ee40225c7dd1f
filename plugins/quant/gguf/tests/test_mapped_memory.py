# SPDX-License-Identifier: Apache-2.0
"""A mapped file is used where it lies: loading it adds no copy of its weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gguf_samples import write_folder

from tramontane.export import WriteOptions, convert_model
from tramontane.load import LoadOptions
from tramontane.plugins import installed

SCRIPT = """
import json, sys
import torch
from tramontane.load import model
from tramontane.memory import PeakMemory
from tramontane.testing.harness import Harness
torch.set_num_threads(1)
fill, found = model.fill_weights, {}

def watched(*args):
    with PeakMemory() as peak:
        fill(*args)
    parts = [part for weight in args[0].weights for part in weight.parts]
    turned = sum(part.nbytes for part in parts if part.path.endswith(("q_proj", "k_proj")))
    found.update(growth=peak.growth, weights=args[0].nbytes, turned=turned)

model.fill_weights = watched
for path in sys.argv[1:]:
    harness = Harness.load(path, backend="torch", dtype="float32", num_blocks=16)
    harness.logits([3, 5])
print(json.dumps(found))
"""


@pytest.mark.parametrize("quant", ["q8_0", *(pytest.param(name, marks=pytest.mark.full) for name in ("q4_0", None))])
def test_a_mapped_file_adds_no_copy(tmp_path: Path, quant: str | None) -> None:
    """RssAnon and Shmem while the weights come in: vectors are copied, and queries and keys, whose rows llama.cpp keeps
    in another order."""
    wide = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8}
    files = []
    for name, changes in (("small", {}), ("large", wide)):
        source = write_folder(tmp_path / name, **changes)
        files.append(tmp_path / f"{name}.gguf")
        options = LoadOptions(quant=quant, backend="torch", dtype="float32")
        convert_model(str(source), files[-1], options, installed(), form="gguf", write=WriteOptions())
    mapped = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", SCRIPT, *map(str, files)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=mapped).stdout)
    assert found["weights"] > 8e6
    assert found["growth"] < found["turned"] + 0.01 * found["weights"] + 4e5, found
    assert found["turned"] < 0.1 * found["weights"]
