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
        made._attn_implementation = "eager"  # the plain definition; some fused ones leave out softcaps
        made._experts_implementation = "eager"
        torch.manual_seed(seed)
        named = getattr(transformers, config["architectures"][0], None)  # not there where ours has a published alias
        model = (named or transformers.AutoModelForCausalLM.from_config)(made).float().eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(_draw(name, parameter, generator))
            if made.get_text_config().tie_word_embeddings:
                _loosen(model)
            for name, buffer in model.named_buffers():
                if "correction_bias" in name:  # routing biases that a fresh model has at zero
                    buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
        return cls(model)

    def save(self, directory: Path) -> Path:
        """Write config and safetensors, in the type that the weights have; returns the directory."""
        self.model.save_pretrained(directory)
        return directory

    def rounded(self, directory: Path) -> Path:
        """Round all weights to bfloat16 and write them so; the model goes on computing in float32 with these."""
        self.model.to(torch.bfloat16).save_pretrained(directory)
        self.model.float()
        return directory

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits of every token: float32 [tokens, vocabulary]."""
        with torch.no_grad():
            logits_TV: torch.Tensor = self.model(torch.tensor([list(ids)]), use_cache=False).logits[0]
        return logits_TV.float().numpy()


def _draw(name: str, parameter: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(parameter.shape, generator=generator)
    if parameter.dim() > 1:
        return noise * WEIGHT_STD
    if name.endswith("bias") or "sinks" in name:
        return noise * 0.2
    return parameter.detach() + 0.2 * noise  # norm weights around what the class starts from: 1, or 0 for Gemma


def _loosen(model: Any) -> None:
    """Keep a tied model from echoing its input: embeddings small beside what blocks add, logits as large as before."""
    model.get_input_embeddings().weight.mul_(0.3)
    for name, parameter in model.named_parameters():
        if name in ("model.norm.weight", "model.final_layernorm.weight"):
            parameter.add_(2.0)
