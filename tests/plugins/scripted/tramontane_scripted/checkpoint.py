# SPDX-License-Identifier: Apache-2.0
"""Writes a scripted checkpoint: an ordinary Hugging Face folder with a real tokenizer.

Owns the encoding of replies as weights; :mod:`tramontane_scripted.model` is its reader.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from attrs import field, frozen
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from tramontane_scripted.model import IS_CUE, IS_TOPIC, ONE, TOPIC, WIDTH

Reply = str | Sequence[int]
CODE = 64
# Only the assistant's turns have a beginning, which is what a script waits for.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'assistant' %}<|im_start|>{% endif %}"
    "{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


@frozen
class Script:
    """What a scripted model says.

    Attributes:
        replies: What follows the first cue, the second, and so on; the last one is repeated for ever. Text or ids.
        topics: Other replies for contexts that hold a certain token, given as its text (`" forest"`). The last such
            token decides.
        cues: Tokens after which a reply begins.
        end: The token that ends each reply.
    """

    replies: Sequence[Reply]
    topics: Mapping[str, Sequence[Reply]] = field(factory=dict)
    cues: Sequence[str] = ("<|im_start|>",)
    end: str = "<|im_end|>"


def write_scripted(
    folder: Path,
    tokenizer_folder: Path,
    script: Script,
    *,
    chat_template: str | None = CHAT_TEMPLATE,
    max_positions: int = 2048,
) -> Path:
    """Write the checkpoint of `script` with the tokenizer found in `tokenizer_folder`.

    Args:
        folder: Where to; made if it is missing.
        tokenizer_folder: Holds tokenizer.json and tokenizer_config.json.
        script: What to say.
        chat_template: ``None`` makes a base model.
        max_positions: Longest context.

    Raises:
        ValueError: A cue, a topic or the end is not one token, or a reply holds a cue or a topic.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_folder / name, folder / name)
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    weights, groups, end = _weights(tokenizer, script)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["ScriptedForCausalLM"],
        "model_type": "scripted",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": CODE,
        "scripts": len(groups),
        "replies": max(len(group) for group in groups),
        "script_rows": weights["script.weight"].shape[0],
        "max_position_embeddings": max_positions,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.token_to_id("<s>"),
        "eos_token_id": end,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end, "do_sample": False}))
    return folder


def reply_ids(tokenizer: Tokenizer, reply: Reply) -> list[int]:
    """The tokens of a reply, without its end."""
    return list(tokenizer.encode(reply, add_special_tokens=False).ids if isinstance(reply, str) else reply)


def _weights(tokenizer: Tokenizer, script: Script) -> tuple[dict[str, Tensor], list[list[list[int]]], int]:
    groups = [[reply_ids(tokenizer, reply) for reply in group] for group in (script.replies, *script.topics.values())]
    cues = [_single(tokenizer, cue) for cue in script.cues]
    topics = [_single(tokenizer, topic) for topic in script.topics]
    end = _single(tokenizer, script.end)
    for reply in (reply for group in groups for reply in group):
        if marked := set(reply) & {*cues, *topics}:
            raise ValueError(f"the reply {tokenizer.decode(reply)!r} holds cues or topics: ids {sorted(marked)}")
    marks = torch.zeros(tokenizer.get_vocab_size(), WIDTH)
    marks[:, ONE] = 1.0
    marks[cues, IS_CUE] = 1.0
    for number, topic in enumerate(topics, 1):
        marks[topic, IS_TOPIC], marks[topic, TOPIC] = 1.0, float(number)
    said, bounds = _rows(groups, end)
    codes = torch.randint(0, 2, (marks.shape[0], CODE), generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    weights = {
        "marks.weight": marks,
        "bounds.weight": torch.tensor(bounds, dtype=torch.float32),
        "script.weight": codes[said].contiguous(),
        "lm_head.weight": codes,
    }
    return weights, groups, end


def _rows(groups: Sequence[Sequence[Sequence[int]]], end: int) -> tuple[list[int], list[tuple[int, int]]]:
    """All replies one after the other, each with its end; row 0 is the end alone. And the bounds of each."""
    said, bounds = [end], []
    longest = max(len(group) for group in groups)
    for group in groups:
        for number in range(longest):
            if number < len(group):
                first = len(said)
                said += [*group[number], end]
                bounds.append((first, len(said) - 1))
            else:
                bounds.append(bounds[-1])
    return said, bounds


def _single(tokenizer: Tokenizer, text: str) -> int:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if len(ids) != 1:
        raise ValueError(f"{text!r} is {len(ids)} tokens of this tokenizer, not one")
    return int(ids[0])
