# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-backend-cuda."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import BackendSpec


@hookimpl
def tramontane_backends() -> list[BackendSpec]:
    """Triton kernels, by request only: below stock torch until they are measured on a card."""
    return [
        BackendSpec(name="cuda", backend="tramontane_backend_cuda.backend:CudaBackend", devices=("cuda",), priority=5),
    ]
