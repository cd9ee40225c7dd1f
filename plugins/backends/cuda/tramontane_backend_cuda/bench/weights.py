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
from tramontane.schemes import Dense, Fields, Scheme
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
                weight = torch.randn(shape, generator=drawn, device=device, dtype=blueprint.dtype)
                weight *= matrix.in_features**-0.5
                packed[scheme, shape] = {"weight": weight} if isinstance(scheme, Dense) else scheme.quantize(weight)
            matrix.stored.fill(index, {name: one.clone() for name, one in packed[scheme, shape].items()})
    for param in blueprint.params.values():
        param.value = (1 + 0.1 * torch.randn(param.shape, generator=drawn, device=device)).to(param.dtype)
    for constant in blueprint.constants.values():
        constant.value = constant.make().to(device)
