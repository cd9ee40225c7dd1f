# SPDX-License-Identifier: Apache-2.0
"""The demo model in plain torch: a Llama, weight for weight the `LlamaForCausalLM` that its config.json describes.

Owns the shape of the model. Knows nothing of data, training or files. Shapes: B rows, T tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

import torch
from attrs import asdict, frozen
from torch import Tensor, nn
from torch.nn import functional as F


@frozen
class Shape:
    """Sizes, under the names of a Hugging Face config. All row lengths are multiples of 256, as K-quants need."""

    vocab_size: int = 2304
    hidden_size: int = 256
    intermediate_size: int = 512
    num_hidden_layers: int = 5
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    max_position_embeddings: int = 1024
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    def hugging_face(self, bos: int, eos: int) -> dict[str, object]:
        """The config.json of this shape."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **asdict(self),
            "rope_scaling": None,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "initializer_range": 0.02,
            "bos_token_id": bos,
            "eos_token_id": eos,
            "torch_dtype": "bfloat16",
            "use_cache": True,
        }


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.rms_norm(x_BTD, (x_BTD.shape[-1],), self.weight.to(x_BTD.dtype), self.eps)


def rope_tables(length: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin [length, head_dim], halves repeated as the rotate-half form needs (Su et al. 2021)."""
    inverse = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angle = torch.outer(torch.arange(length, dtype=torch.float32), inverse)
    angle = torch.cat((angle, angle), -1)
    return angle.cos(), angle.sin()


def rotate(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    """Apply the rotary position embedding to queries or keys."""
    first, second = x_BHTK.chunk(2, -1)
    return x_BHTK * cos_TK + torch.cat((-second, first), -1) * sin_TK


class Attention(nn.Module):
    """Causal attention with grouped key and value heads."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = s.num_attention_heads, s.num_key_value_heads, s.head_dim
        self.q_proj = nn.Linear(s.hidden_size, self.heads * s.head_dim, bias=False)
        self.k_proj = nn.Linear(s.hidden_size, self.kv_heads * s.head_dim, bias=False)
        self.v_proj = nn.Linear(s.hidden_size, self.kv_heads * s.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * s.head_dim, s.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, cos_TK: Tensor, sin_TK: Tensor, hidden_1TT: Tensor) -> Tensor:
        B, T, _ = x_BTD.shape
        q = self.q_proj(x_BTD).view(B, T, self.heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x_BTD).view(B, T, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x_BTD).view(B, T, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate(q, cos_TK, sin_TK).to(v.dtype), rotate(k, cos_TK, sin_TK).to(v.dtype)
        repeat = self.heads // self.kv_heads
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        # Written out: on a CPU its backward pass is faster than the fused one's, and torch.compile fuses it anyway.
        scores = (q * self.head_dim**-0.5) @ k.transpose(-1, -2)
        out = scores.masked_fill(hidden_1TT.unsqueeze(-3), float("-inf")).softmax(-1).to(v.dtype) @ v
        return self.o_proj(out.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    """The gated feed-forward part (Shazeer 2020)."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(s.hidden_size, s.intermediate_size, bias=False)
        self.up_proj = nn.Linear(s.hidden_size, s.intermediate_size, bias=False)
        self.down_proj = nn.Linear(s.intermediate_size, s.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(s.hidden_size, s.rms_norm_eps)
        self.self_attn = Attention(s)
        self.post_attention_layernorm = RMSNorm(s.hidden_size, s.rms_norm_eps)
        self.mlp = MLP(s)

    def forward(self, x_BTD: Tensor, cos_TK: Tensor, sin_TK: Tensor, hidden_1TT: Tensor) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos_TK, sin_TK, hidden_1TT)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Decoder(nn.Module):
    """Embedding, layers and final norm, named as `LlamaModel` names them."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(s.vocab_size, s.hidden_size)
        self.layers = nn.ModuleList(Layer(s) for _ in range(s.num_hidden_layers))
        self.norm = RMSNorm(s.hidden_size, s.rms_norm_eps)


class DemoModel(nn.Module):
    """Token ids [B, T] -> logits [B, T, V]; the head is the embedding, so it has no weight of its own."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.model = Decoder(s)
        cos, sin = rope_tables(s.max_position_embeddings, s.head_dim, s.rope_theta)
        self.register_buffer("cos_TK", cos, persistent=False)
        self.register_buffer("sin_TK", sin, persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * s.num_hidden_layers) ** 0.5 if deep else 0.02)

    def forward(self, ids_BT: Tensor, position_BT: Tensor | None = None, kept_K: Tensor | None = None) -> Tensor:
        """Logits [B, T, V], or [K, V] of the places `kept_K` in the flattened rows.

        With `position_BT` rows are packed: a document begins wherever its position is 0, and none sees another.
        """
        T = ids_BT.shape[1]
        hidden_1TT = torch.ones(1, T, T, dtype=torch.bool, device=ids_BT.device).triu(1)
        cos_TK, sin_TK = self.cos_TK[:T], self.sin_TK[:T]
        if position_BT is not None:
            document_BT = (position_BT == 0).cumsum(1)
            hidden_1TT = hidden_1TT | (document_BT.unsqueeze(-1) != document_BT.unsqueeze(-2))
            cos_TK, sin_TK = self.cos_TK[position_BT].unsqueeze(1), self.sin_TK[position_BT].unsqueeze(1)
        x_BTD = self.model.embed_tokens(ids_BT)
        for layer in self.model.layers:
            x_BTD = layer(x_BTD, cos_TK, sin_TK, hidden_1TT)
        out = self.model.norm(x_BTD)
        return F.linear(out if kept_K is None else out.flatten(0, 1)[kept_K], self.model.embed_tokens.weight)

    @torch.no_grad()
    def complete(self, ids_BT: Tensor, eos: int, limit: int) -> list[list[int]]:
        """Greedy continuations of rows of equal length, each up to and with `eos` and at most `limit` tokens long.

        Slow and obvious: no cache.
        """
        start = ids_BT.shape[1]
        ended_B = torch.zeros(len(ids_BT), dtype=torch.bool)
        while ids_BT.shape[1] < min(start + limit, self.cos_TK.shape[0]) and not ended_B.all():
            next_B = self(ids_BT)[:, -1].argmax(-1)
            ids_BT = torch.cat((ids_BT, next_B[:, None]), 1)
            ended_B |= next_B == eos
        new = ids_BT[:, start:].tolist()
        return [row[: row.index(eos) + 1] if eos in row else row for row in new]
