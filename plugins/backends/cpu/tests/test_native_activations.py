# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that state how activations are rounded: native kernels round them finer (decision 48)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tramontane.schemes import Act
from tramontane.testing.harness import Harness
from tramontane.testing.quantized import PROMPT, write_twins
from tramontane.testing.samples import sample

pytest.importorskip("tramontane_quant_fp8", reason="reads the checkpoint")
CONFIG = sample("LlamaForCausalLM", "llama", hidden_size=128, intermediate_size=256, num_hidden_layers=2)
RULES = {"static": Act("fp8", "static", "tensor"), "dynamic": Act("fp8", per="token")}
INPUT_SCALE = torch.tensor(1 / 64)
"""Activations up to 7 are kept; beyond 448 scales they would be clamped."""


def pack(module: str, weight: Tensor) -> tuple[dict[str, Tensor], Tensor] | None:
    """One scale for the matrix and one for what meets it."""
    if "_proj" not in module:
        return None
    scale = weight.abs().max() / 448
    codes = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": codes, "weight_scale": scale, "input_scale": INPUT_SCALE}, codes.float() * scale


@pytest.mark.parametrize("scheme", RULES)
def test_native_kernels_are_nearer_to_exact_activations_than_the_rule(scheme: str, tmp_path: Path) -> None:
    stated = {"quant_method": "fp8", "activation_scheme": scheme}
    made = write_twins(tmp_path, CONFIG, pack, settings={"quantization_config": stated})
    exact = Harness.load(made.quantized, backend="torch", dtype="float32", activations="exact").logits(PROMPT)
    ruled = Harness.load(made.quantized, backend="torch", dtype="float32").logits(PROMPT)
    native = Harness.load(made.quantized, backend="cpu", dtype="float32")
    assert native.loaded.plan.weight("model.layers.0.mlp.down_proj").parts[0].scheme.act == RULES[scheme]
    error, allowed = (float(np.square(found - exact).mean()) for found in (native.logits(PROMPT), ruled))
    assert 0 < error < 0.5 * allowed
