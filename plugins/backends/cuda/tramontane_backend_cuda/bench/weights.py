# SPDX-License-Identifier: Apache-2.0
"""Random weights on the device, in any scheme.

A matrix of one shape and scheme is drawn and packed once; every layer gets a copy of its own, so that a step reads as
many bytes as a real model's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tramontane.backends.base import Backend
from tramontane.build import Blueprint
from tramontane.schemes import Dense, Fields, Ggml, Scheme
from tramontane.weights import Matrix

SchemeOf = Callable[[Matrix], Scheme]


def fill_random(blueprint: Blueprint, scheme_of: SchemeOf, backend: Backend) -> None:
    """Weights of the size that keeps activations alike, vectors near one, tables as they are computed."""
    device, drawn = backend.device, torch.Generator(backend.device).manual_seed(0)
    packed: dict[Any, Fields] = {}
    for matrix in blueprint.matrices.values():
        scheme = scheme_of(matrix)
        matrix.schemes = tuple(scheme for _ in matrix.parts)
        matrix.stored = backend.store(matrix, blueprint.dtype)
        stack = () if matrix.experts is None else (matrix.experts,)
        for index, part in enumerate(matrix.parts):
            shape = (*stack, part.out_features, matrix.in_features)
            if (scheme, shape) not in packed:
                packed[scheme, shape] = _drawn(scheme, shape, drawn, blueprint.dtype)
            matrix.stored.fill(index, {name: one.clone() for name, one in packed[scheme, shape].items()})
    for param in blueprint.params.values():
        param.value = (1 + 0.1 * torch.randn(param.shape, generator=drawn, device=device)).to(param.dtype)
    for constant in blueprint.constants.values():
        constant.value = constant.make().to(device)


FACTORS = {"q4_k": ((0, 1 / 250), (2, 7.5 / 250)), "q5_k": ((0, 1 / 500), (2, 15.5 / 500)), "q6_k": ((208, 1 / 1300),)}
"""GGML types that only a plugin can quantize to: where a block has its float16 factors, and how large they are for
random codes and scales to give numbers around one, with a mean near zero."""


def _drawn(scheme: Scheme, shape: tuple[int, ...], drawn: torch.Generator, dtype: torch.dtype) -> Fields:
    """Fields of normal numbers, or of random blocks."""
    size = shape[-1] ** -0.5
    if not isinstance(scheme, Ggml) or scheme.name not in FACTORS:
        weight = torch.randn(shape, generator=drawn, device=drawn.device, dtype=dtype) * size
        return {"weight": weight} if isinstance(scheme, Dense) else scheme.quantize(weight)
    wanted = scheme.fields(shape)["weight"].shape
    weight = torch.randint(0, 256, wanted, generator=drawn, device=drawn.device, dtype=torch.uint8)
    blocks = weight.view(-1, scheme.type.nbytes)
    for place, factor in FACTORS[scheme.name]:
        each = torch.rand(len(blocks), 1, generator=drawn, device=drawn.device) + 0.5
        blocks[:, place : place + 2] = (each * factor * size).half().view(torch.uint8)
    return {"weight": weight}
