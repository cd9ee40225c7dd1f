# SPDX-License-Identifier: Apache-2.0
"""What the weight files of a Hugging Face repository are called."""

from __future__ import annotations

import re

INDEX = "model.safetensors.index.json"
"""Lists which tensor lies in which shard."""
SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
"""One of several safetensors files: its number and how many there are."""
OTHER_LAYOUT = re.compile(r"(consolidated|adapter_model|optimizer|training|residual).*")
"""Safetensors files that are not the model in the usual layout: the vendor's own, adapters, training state, and what a
format with layers in files of its own leaves over."""
PICKLE = re.compile(r"(?:pytorch_)?model(?:-\d+-of-\d+)?\.(?:bin|pt|pth)")
"""Weights as pickle."""
