# SPDX-License-Identifier: Apache-2.0
"""A model without weights whose answers a test writes: for tests of everything above the engine.

Scheduler, cache and engine thread are the real ones; only the runner is not. Tokens are bytes, with BOS and EOS beside
them. :mod:`tramontane.testing.mock` is the runner to use where the engine itself is tested.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
import torch
from attrs import define, field
from tokenizers import decoders, models, pre_tokenizers, processors

from tramontane.adapters import AdapterTable, Targets
from tramontane.api.running import LocalModel
from tramontane.api.service import Service
from tramontane.cache.spec import CacheLayout, CacheSpec, plan_layout
from tramontane.chat import ChatTemplate
from tramontane.chat.parsing import ChatFormat
from tramontane.engine import EngineConfig
from tramontane.engine.runner import StepResult
from tramontane.load.text import TextSide
from tramontane.plugins import Observers
from tramontane.requests import EngineRequest, Task, TokenLogprobs
from tramontane.sequence import Row, StepPlan
from tramontane.sequence import Sequence as Running
from tramontane.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tramontane.api import LLM

BOS, EOS = 256, 257
VOCAB = 260
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)

Answer = Callable[[str], str]
"""From the prompt's text to the answer's; EOS follows it."""


def byte_tokenizer() -> Tokenizer:
    """One token per byte (ids 0 to 255), BOS and EOS; BOS begins every prompt."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    by_byte = {_byte_of(letter): letter for letter in alphabet}
    vocab = {by_byte[byte]: byte for byte in range(256)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return Tokenizer(backend, bos_id=BOS, eos_ids=(EOS,), names={"bos_token": "<s>", "eos_token": "</s>"})


def _byte_of(letter: str) -> int:
    """The byte that a letter of the byte-level alphabet stands for; those not printable are shifted by 256."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = [byte for byte in range(256) if byte not in printable]
    code = ord(letter)
    return code if code < 256 else shifted[code - 256]


@define
class _Done:
    step: StepResult

    def result(self) -> StepResult:
        return self.step


@define(eq=False)
class AnsweringRunner:
    """Implements :class:`tramontane.engine.runner.Runner`: gives each sequence the tokens of its answer in turn."""

    answer: Answer
    tokenizer: Tokenizer
    cache_layout: CacheLayout
    num_blocks: int = 512
    max_model_len: int = 1024
    vocab_size: int = VOCAB
    step_s: float = 0.0
    """How long a step takes."""
    fail: Callable[[StepPlan], Exception | None] = lambda plan: None
    """Is asked with every plan; an exception it returns is raised by the step."""
    _answers: dict[tuple[int, ...], list[int]] = field(factory=dict, init=False)

    def check(self, request: EngineRequest) -> None:
        """Everything can be served."""

    def started(self, sequence: Running) -> None:
        """Nothing is kept per sequence."""

    def dropped(self, sequence: Running) -> None:
        """Nothing is kept per sequence."""

    def launch(self, plan: StepPlan) -> _Done:
        """Give every sampling row its next token."""
        if self.step_s:
            time.sleep(self.step_s)
        error = self.fail(plan)
        if error is not None:
            raise error
        result = StepResult([])
        for index, row in enumerate(plan.rows):
            self._run(index, row, result)
        return _Done(result)

    def _run(self, index: int, row: Row, result: StepResult) -> None:
        task = row.seq.request.task
        ends = row.start + row.count >= row.seq.prompt_len
        if task is Task.LOGITS:
            tokens = row.seq.tokens[row.start : row.start + row.count]
            result.outputs[index] = np.eye(self.vocab_size, dtype=np.float32)[tokens]
        elif task is Task.EMBED and ends:
            result.outputs[index] = np.array([row.seq.prompt_len, sum(row.seq.tokens)], np.float32)
        elif row.all_outputs:
            result.prompt_logprobs[index] = [_logprob(token) for token in row.targets]
        if row.samples:
            answer = self._answer(row.seq)
            place = row.start + row.count - row.seq.prompt_len
            token = answer[place] if place < len(answer) else EOS
            if row.seq.request.sampling.logprobs is not None:
                result.logprobs[len(result.token_ids)] = _logprob(token)
            result.token_ids.append(token)

    def _answer(self, sequence: Running) -> list[int]:
        prompt = sequence.request.prompt_token_ids
        if prompt not in self._answers:
            text = self.answer(self.tokenizer.decode(list(prompt), skip_special_tokens=True))
            self._answers[prompt] = list(text.encode())
        return self._answers[prompt]


def _logprob(token: int) -> TokenLogprobs:
    return TokenLogprobs(token_id=token, logprob=-1.0, rank=1)


def answering_service(
    answer: Answer,
    *,
    chat: bool = True,
    template: str = TEMPLATE,
    chat_format: ChatFormat | None = None,
    tokenizer: bool = True,
    generation_config: Mapping[str, Any] | None = None,
    engine: EngineConfig | None = None,
    observers: Observers | None = None,
    name: str = "answering",
    **runner: Any,
) -> Service:
    """A running model that answers with what ``answer`` says.

    Args:
        answer: From the prompt's text to the answer's.
        chat: Whether it has a chat template.
        template: The chat template.
        chat_format: How its answers are read.
        tokenizer: Whether it has a tokenizer.
        generation_config: As of the model's ``generation_config.json``.
        engine: How the engine is to run.
        observers: Who is told.
        name: What the model is called.
        runner: Fields of :class:`AnsweringRunner`.
    """
    layout = plan_layout({"layer": CacheSpec(kv_heads=1, head_dim=8)}, 16)
    bytes_as_tokens = byte_tokenizer()
    model: Any = SimpleNamespace(
        name=name,
        architecture=SimpleNamespace(name="answering"),
        backend=SimpleNamespace(name="none", device="cpu"),
        blueprint=SimpleNamespace(dtype=torch.float32),
        adapters=_no_adapters(),
        runner=AnsweringRunner(answer, bytes_as_tokens, layout, **runner),
        engine=engine or EngineConfig(block_tokens=16),
        text=TextSide(
            tokenizer=bytes_as_tokens if tokenizer else None,
            chat_format=chat_format,
            chat_template=ChatTemplate(template, control=bytes_as_tokens.control) if chat else None,
            generation_config=generation_config or {},
        ),
        capture_note="off",
        plan=SimpleNamespace(weights=()),
        seconds=0.0,
        close=lambda: None,
    )
    return Service(LocalModel(model, name), observers or Observers({}))


def _no_adapters() -> AdapterTable:
    """The table of a model in which nothing can be adapted."""
    nothing: Any = SimpleNamespace(dtype=torch.float32)
    targets = Targets(model="answering", matrices={}, adaptable=frozenset(), maps=())
    return AdapterTable(targets, nothing, columns=1, bind=lambda op: None)


def answering_llm(answer: Answer, **settings: Any) -> LLM:
    """An ``LLM`` over :func:`answering_service`."""
    from tramontane.api import LLM

    return LLM.over(answering_service(answer, **settings))


def scripted(answers: Mapping[str, str], otherwise: str = "") -> Answer:
    """Answers by the words that occur in the prompt; the word that occurs last decides."""

    def answer(prompt: str) -> str:
        found: Sequence[tuple[int, str]] = [(prompt.rfind(word), text) for word, text in answers.items()]
        place, text = max(found, default=(-1, otherwise))
        return text if place >= 0 else otherwise

    return answer
