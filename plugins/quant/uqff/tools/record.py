# SPDX-License-Identifier: Apache-2.0
"""Writes ``tests/recorded.json``: one layer of a tiny model as mistral.rs itself stores it, in every type.

    python tools/record.py PYTHON [OLD_PYTHON]

The arguments are interpreters that have the ``mistralrs`` package: a recent one (which writes version 1.2), and one of
0.5 or 0.6 (0.1). A file that was recorded before keeps what is not recorded anew.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from uqff_samples import SIZE, save_model  # noqa: E402

NEW = ("q8_0", "q5_0", "q4_1", "afq2", "afq3", "afq4", "afq6", "afq8", "hqq4", "hqq8", "fp8", "f8q8", "mxfp4")
OLD = ("Q8_0", "HQQ4", "HQQ8")
LAYER = "model.layers.0.self_attn.k_proj"
NUMBER = "2"
"""Of the same layer in old files: after the head and the queries."""
CODE = """
import sys
from mistralrs import Architecture, ModelDType, Runner, Which
model, kind, out = sys.argv[1:]
which = Which.Plain(model_id=model, arch=Architecture.Llama, dtype=ModelDType.F32, write_uqff=out)
Runner(which=which, in_situ_quant=kind, token_source="none")
"""


def record(python: str, kind: str, model: Path, folder: Path) -> dict[str, list[object]]:
    """The tensors of the layer as that interpreter's package stores them."""
    out = folder / f"{kind}.uqff"
    # Old packages may die once the file is written, on machines that lack an instruction.
    subprocess.run([python, "-c", CODE, str(model), kind, str(out)], check=False, capture_output=True)
    found: dict[str, list[object]] = {}
    for name, tensor in load_file(folder / f"{kind}-0.uqff").items():
        if name == NUMBER or name.startswith(f"{LAYER}."):
            raw = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
            label = str(tensor.dtype).removeprefix("torch.")
            found[name.removeprefix(f"{LAYER}.")] = [label, list(tensor.shape), base64.b64encode(raw).decode()]
    return found


def main() -> None:
    """Record with the given interpreters."""
    path = TESTS / "recorded.json"
    content = json.loads(path.read_text()) if path.is_file() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "model")
        for version, kinds, python in zip(("1.2", "0.1"), (NEW, OLD), sys.argv[1:], strict=False):
            content[version] = {
                kind.lower(): record(python, kind, folder / "model", folder / version) for kind in kinds
            }
    path.write_text(json.dumps({"size": SIZE, **content}, indent=0) + "\n")


if __name__ == "__main__":
    main()
