# SPDX-License-Identifier: Apache-2.0
"""From a model's declarations to a loaded model: builder, plan, memory, weights."""

from tramontane.build.blueprint import Blueprint
from tramontane.build.builder import Builder
from tramontane.build.plan import ModelPlan

__all__ = ["Blueprint", "Builder", "ModelPlan"]
