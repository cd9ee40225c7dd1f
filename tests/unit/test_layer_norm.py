# SPDX-License-Identifier: Apache-2.0
"""Layer norms: at residual junctions, per head, and the torch kernel against the definition."""

from __future__ import annotations

import pytest
import torch
from attrs import define
from torch import Tensor

from tramontane.backends.torch.norm import layer_norm
from tramontane.build import Blueprint, Builder
from tramontane.ops import LayerNorm, Runtime, reference_kernel

T, H, D = 5, 3, 16


@define
class Vector:
    tensor: Tensor


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(op: LayerNorm, weights: list[Vector], x: Tensor) -> Tensor:
    kernel = layer_norm(op, weights)
    assert not isinstance(kernel, str)
    out = torch.full_like(x, float("nan"))
    kernel(None, (x,), (out,))
    return out


@pytest.mark.parametrize("bias", [True, False])
def test_the_torch_kernel_follows_the_definition(bias: bool) -> None:
    op, weights = LayerNorm(1e-5, bias=bias), [Vector(normal(D, seed=1)), Vector(normal(D, seed=2))][: 1 + bias]
    x_TD = normal(T, D, seed=0) * 3 + 1
    (wanted_TD,) = op.reference(None, weights, x_TD)
    assert torch.allclose(run(op, weights, x_TD), wanted_TD, atol=1e-6)
    plain_TD = (x_TD - x_TD.mean(-1, keepdim=True)) / (x_TD.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    shift = weights[1].tensor if bias else 0.0
    assert torch.allclose(wanted_TD, plain_TD * weights[0].tensor + shift, atol=1e-6)


def test_it_is_rounded_once() -> None:
    weight_D, x_TD = normal(D, seed=1), normal(T, D, seed=0).to(torch.bfloat16)
    wide = LayerNorm(1e-5, bias=False).reference(None, [Vector(weight_D)], x_TD.float())[0]
    narrow_TD = run(LayerNorm(1e-5, bias=False), [Vector(weight_D)], x_TD)
    assert torch.equal(narrow_TD, wide.to(torch.bfloat16))


def test_heads_may_have_weights_of_their_own() -> None:
    weight_HD, x_THD = normal(H, D, seed=1), normal(T, H, D, seed=0)
    op = LayerNorm(1e-5, bias=False)
    (found_THD,) = op.reference(None, [Vector(weight_HD)], x_THD)
    for head in range(H):
        (one_TD,) = op.reference(None, [Vector(weight_HD[head])], x_THD[:, head])
        assert torch.allclose(found_THD[:, head], one_TD, atol=1e-6)
    assert layer_norm(op, [Vector(weight_HD)]) == "its weights differ by head"


def test_a_junction_adds_before_it_norms() -> None:
    builder = Builder(Blueprint(Runtime(torch.device("cpu")), torch.float32, torch.float32, 16))
    norm = builder.layer_norm("norm", D, 1e-5)
    for param in builder.blueprint.params.values():
        param.value = normal(D, seed=len(param.path))
    for bound in builder.blueprint.ops:
        bound.kernel = reference_kernel(bound.op, bound.weights)
    x_TD, residual_TD = normal(T, D, seed=0), normal(T, D, seed=3)
    alone_TD, same_TD = norm(x_TD)
    assert same_TD is x_TD
    both_TD, total_TD = norm(x_TD, residual_TD)
    assert torch.equal(total_TD, x_TD + residual_TD)
    assert torch.equal(both_TD, norm(total_TD)[0])
    assert not torch.equal(alone_TD, both_TD)
