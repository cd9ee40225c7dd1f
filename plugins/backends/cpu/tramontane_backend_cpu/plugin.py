# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-backend-cpu."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import BackendSpec, EncoderSpec, HealthCheck


@hookimpl
def tramontane_backends() -> list[BackendSpec]:
    """Native kernels; preferred over stock torch wherever the library was built."""
    return [
        BackendSpec(name="cpu", backend="tramontane_backend_cpu.backend:CpuBackend", devices=("cpu",), priority=100),
    ]


@hookimpl
def tramontane_encoders() -> list[EncoderSpec]:
    """Native code for most types, where the library was built."""
    return [EncoderSpec(name="cpu", offer="tramontane_backend_cpu.encode:offer")]


@hookimpl
def tramontane_health_checks() -> list[HealthCheck]:
    """Whether the native library works, and what it makes of this processor."""
    return [HealthCheck(name="cpu-backend", check="tramontane_backend_cpu.health:check")]
