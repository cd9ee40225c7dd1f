# SPDX-License-Identifier: Apache-2.0
"""Tiny random models and what ``transformers`` says about them.

``transformers`` is a development dependency; nothing outside tests imports this module. Weights are drawn wider than a
fresh model's, because near-zero weights give flat logits that prove little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import define
from numpy.typing import NDArray

WEIGHT_STD = 0.12
"""Standard deviation of matrices; of the order 1 / sqrt(width) for the tiny widths used."""


@define(eq=False)
class Oracle:
    """A ``transformers`` model in float32 with random weights."""

    model: Any

    @classmethod
    def make(cls, config: Mapping[str, Any], seed: int = 0) -> Oracle:
        """Build from the content of a ``config.json`` (``model_type`` decides the class)."""
        import transformers

        fields = {k: v for k, v in config.items() if k not in ("architectures", "model_type")}
        made = transformers.AutoConfig.for_model(config["model_type"], **fields)
        torch.manual_seed(seed)
        model = getattr(transformers, config["architectures"][0])(made).float().eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(_draw(name, parameter, generator))
            for name, buffer in model.named_buffers():
                if "correction_bias" in name:  # routing biases that a fresh model has at zero
                    buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
        return cls(model)

    def save(self, directory: Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write config and safetensors; returns the directory."""
        if dtype is torch.float32:
            self.model.save_pretrained(directory)
        else:
            self.model.to(dtype).save_pretrained(directory)
        return directory

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits of every token: float32 [tokens, vocabulary]."""
        with torch.no_grad():
            return self.model(torch.tensor([list(ids)]), use_cache=False).logits[0].float().numpy()

    def greedy(self, ids: Sequence[int], tokens: int) -> tuple[list[int], NDArray[np.float32]]:
        """Greedy continuation by full recomputation, and the logits that each choice was made from."""
        known, rows = list(ids), []
        for _ in range(tokens):
            row = self.logits(known)[-1]
            rows.append(row)
            known.append(int(row.argmax()))
        return known[len(ids) :], np.stack(rows)


def _draw(name: str, parameter: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(parameter.shape, generator=generator)
    if parameter.dim() > 1:
        return noise * WEIGHT_STD
    if name.endswith("bias") or "sinks" in name:
        return noise * 0.2
    return parameter.detach() + 0.2 * noise  # norm weights around what the class starts from: 1, or 0 for Gemma


def same_tokens(ours: Sequence[int], theirs: Sequence[int], logits: NDArray[np.float32], tolerance: float) -> bool:
    """Tokens equal up to the first step whose two best logits are closer than twice the tolerance."""
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a != b:
            best = np.sort(logits[step])[-2:]
            return bool(best[1] - best[0] < 2 * tolerance * max(1.0, float(np.abs(logits[step]).max())))
    return True
