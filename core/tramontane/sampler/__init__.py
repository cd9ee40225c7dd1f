# SPDX-License-Identifier: Apache-2.0
"""Sampling: from a step's logits to its tokens, batched and on the device. See :class:`Sampler`."""

from __future__ import annotations

from tramontane.sampler.result import Sampled, prompt_logprobs
from tramontane.sampler.sampler import Sampler
from tramontane.sampler.state import LogitsProcessor

__all__ = ["LogitsProcessor", "Sampled", "Sampler", "prompt_logprobs"]
