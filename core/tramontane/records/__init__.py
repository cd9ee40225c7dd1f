# SPDX-License-Identifier: Apache-2.0
"""The frozen records that plugins return from their hooks: one class per kind of contribution.

A record says what exists and where its code is, as a lazy ``"package.module:Name"`` string; nothing is imported until
someone chooses the record. So this package, and every plugin's ``plugin.py``, imports no torch. It holds no behaviour
beyond checking a record's form and importing what it points to.

Each class has an integer ``API``: the version of that kind of record. A record states the version it was written for in
``api``; the core accepts the current one and the one before (see :mod:`tramontane.plugins`).
"""

from __future__ import annotations

from tramontane.records.base import Record, resolve
from tramontane.records.events import EngineInfo, RequestSummary
from tramontane.records.faces import CommandSpec, FrontendSpec, Health, HealthCheck, HealthStatus, ToolProviderSpec
from tramontane.records.models import (
    AdapterSpec,
    ArchitectureSpec,
    ChatFormatSpec,
    EncoderSpec,
    ImportanceSpec,
    LoaderSpec,
    ProcessorSpec,
    QuantFormatSpec,
    QuantizerSpec,
    TokenizerSpec,
    WriterSpec,
)
from tramontane.records.running import (
    BackendSpec,
    ExecutorSpec,
    KernelSpec,
    LogitsProcessorSpec,
    PipelineSpec,
    ProposerSpec,
)

__all__ = [
    "AdapterSpec",
    "ArchitectureSpec",
    "BackendSpec",
    "ChatFormatSpec",
    "CommandSpec",
    "EncoderSpec",
    "EngineInfo",
    "ExecutorSpec",
    "FrontendSpec",
    "Health",
    "HealthCheck",
    "HealthStatus",
    "ImportanceSpec",
    "KernelSpec",
    "LoaderSpec",
    "LogitsProcessorSpec",
    "PipelineSpec",
    "ProcessorSpec",
    "ProposerSpec",
    "QuantFormatSpec",
    "QuantizerSpec",
    "Record",
    "RequestSummary",
    "TokenizerSpec",
    "ToolProviderSpec",
    "WriterSpec",
    "resolve",
]
