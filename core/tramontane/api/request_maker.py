# SPDX-License-Identifier: Apache-2.0
"""From a caller's arguments to engine requests: templates, tokenizing, defaults, checks. Nothing runs here."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field

from tramontane.api.answers import Answers
from tramontane.api.chat_call import ChatCall
from tramontane.api.chat_maker import ChatMaker, Prepared
from tramontane.api.collect import RequestOutput
from tramontane.api.prompts import PromptLimits, as_list, token_ids
from tramontane.errors import RequestError
from tramontane.requests import EngineRequest, SamplingParams, Task

if TYPE_CHECKING:
    from typing import Unpack

    from tramontane.api.adapters import Adapters
    from tramontane.api.running import Running
    from tramontane.api.settings import RequestSettings
    from tramontane.tokenizer import Tokenizer

Params = SamplingParams | Sequence[SamplingParams] | None

_FROM_GENERATION_CONFIG = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
_RENAMED = {"max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens"}
NEVER = -1e9
"""A bias that keeps a token from being sampled."""


def default_sampling(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling parameters that a ``generation_config.json`` states; unusable values are left out.

    ``do_sample: false`` means greedy, as in transformers; a file that does not mention it leaves the field's defaults.
    """
    found = {name: config[name] for name in _FROM_GENERATION_CONFIG if config.get(name) is not None}
    if config.get("do_sample") is False:
        found["temperature"] = 0.0
    if config.get("suppress_tokens"):
        found["logit_bias"] = dict.fromkeys(config["suppress_tokens"], NEVER)
    found |= {ours: config[theirs] for theirs, ours in _RENAMED.items() if config.get(theirs) is not None}
    usable = {}
    for name, value in found.items():
        try:
            SamplingParams(**{name: value})
        except (RequestError, TypeError, ValueError):
            continue
        usable[name] = value
    return usable


@define(eq=False)
class RequestMaker:
    """Makes the requests of one model."""

    name: str
    tokenizer: Tokenizer | None
    chats: ChatMaker
    adapters: Adapters
    defaults: dict[str, Any]
    vocab_size: int
    max_model_len: int
    abort: Callable[[str, int], None]
    ended: Callable[[RequestOutput], None]
    adapter: str | None = None
    """Of requests that name none."""
    _numbers: itertools.count[int] = field(factory=itertools.count)
    _prefix: str = field(factory=lambda: os.urandom(4).hex())

    @classmethod
    def of(
        cls,
        running: Running,
        ended: Callable[[RequestOutput], None],
    ) -> RequestMaker:
        """The maker for a running model; ``ended`` is passed on to :class:`Answers`."""
        name, text = running.info.model, running.text
        return cls(
            name=name,
            tokenizer=text.tokenizer,
            chats=ChatMaker(name, text.tokenizer, text.chat_template, text.chat_format),
            adapters=running.adapters,
            defaults=default_sampling(text.generation_config),
            vocab_size=running.vocab_size,
            max_model_len=running.info.max_model_len,
            abort=running.abort,
            ended=ended,
        )

    def params(self, **overrides: Any) -> SamplingParams:
        """The model's own sampling defaults with some parameters changed.

        Raises:
            RequestError: A parameter is out of range.
        """
        return SamplingParams(**{**self.defaults, **overrides})

    def generate(
        self, prompts: Any, params: Params = None, *, start: float | None = None, **options: Unpack[RequestSettings]
    ) -> Answers:
        """The requests for one prompt or several.

        Raises:
            RequestError: A prompt or the parameters are not usable; with several prompts the message says which.
        """
        listed = as_list(prompts)
        sampling = self._params_of_each(params, len(listed))
        several = len(listed) > 1
        ids = [
            self.encode(prompt, reserve=1, where=f"prompt {place}" if several else "the prompt")
            for place, prompt in enumerate(listed)
        ]
        return self._answers(ids, sampling, Task.GENERATE, options, start)

    def chat(
        self,
        call: ChatCall,
        params: SamplingParams | None = None,
        options: RequestSettings | None = None,
        *,
        start: float | None = None,
    ) -> Answers:
        """The request for the next message of a conversation.

        Raises:
            RequestError: The model has no template, the template refuses the messages, they do not fit, or the call
                asks for what the model's chat format cannot do.
        """
        chosen = _sampling(params if params is not None else self.params(max_tokens=None))
        salt = (options or {}).get("salt", b"")
        chat = self.chats.prepare(call, salt)
        if chat.constraint is not None:
            if chosen.constraint is not None:
                raise RequestError(
                    "the sampling parameters have a constraint already; it and the chat's exclude each other"
                )
            chosen = evolve(chosen, constraint=chat.constraint)
        checked = token_ids(chat.ids, self._encode_text, self._limits(reserve=1), where="the conversation")
        return self._answers([checked], [chosen], Task.GENERATE, options or {}, start, chat)

    def task(self, prompts: Any, task: Task, **options: Unpack[RequestSettings]) -> Answers:
        """The requests that ask for logits or embeddings.

        Raises:
            RequestError: A prompt is not usable.
        """
        listed = as_list(prompts)
        ids = [self.encode(prompt, reserve=0, where=f"input {place}") for place, prompt in enumerate(listed)]
        return self._answers(ids, [SamplingParams(max_tokens=1)] * len(ids), task, options, None)

    def encode(self, prompt: Any, *, reserve: int, where: str = "the prompt") -> tuple[int, ...]:
        """A prompt as checked token ids that leave room for ``reserve`` more."""
        return token_ids(prompt, self._encode_text, self._limits(reserve), where)

    def required_tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            RequestError: The model has none.
        """
        if self.tokenizer is None:
            raise RequestError(f"{self.name} has no tokenizer", hint="give token ids, or a tokenizer with tokenizer=")
        return self.tokenizer

    def _answers(
        self,
        ids: Sequence[tuple[int, ...]],
        sampling: Sequence[SamplingParams],
        task: Task,
        options: RequestSettings,
        start: float | None,
        chat: Prepared | None = None,
    ) -> Answers:
        if any(params.stop for params in sampling):
            self.required_tokenizer()  # stop strings are looked for in the text
        begun = time.monotonic() if start is None else start
        chosen = options.get("adapter", self.adapter)
        adapter = None if chosen is None else self.adapters.find(chosen)
        eos = tuple(self.tokenizer.eos_ids) if self.tokenizer is not None else ()
        reading = None
        if chat is not None:
            eos, reading = tuple(dict.fromkeys((*eos, *chat.ends))), chat.reading
        outputs = []
        for place, (prompt, params) in enumerate(zip(ids, sampling, strict=True)):
            request = EngineRequest(
                id=f"{self._prefix}-{next(self._numbers)}",
                prompt_token_ids=prompt,
                sampling=params,
                task=task,
                eos_token_ids=eos,
                arrival=begun,
                salt=options.get("salt", b""),
                adapter=adapter,
                priority=options.get("priority", 0),
            )
            output = RequestOutput.begin(request, self.tokenizer, prompt=place, start=begun, reading=reading)
            outputs.append(output)
        return Answers(outputs, self.abort, self.ended if chat is None else self._chat_ended)

    def _chat_ended(self, output: RequestOutput) -> None:
        """Remember the answer's tokens: the next turn's prompt will have its text."""
        for choice in output.choices:
            self.chats.remember(output.request, choice.token_ids)
        self.ended(output)

    def _params_of_each(self, params: Params, count: int) -> list[SamplingParams]:
        if params is None:
            return [self.params()] * count
        if isinstance(params, SamplingParams):
            return [params] * count
        if isinstance(params, str | Mapping) or not isinstance(params, Sequence):
            return [_sampling(params)]
        if len(params) != count:
            raise RequestError(
                f"{count} prompts came with {len(params)} sampling parameters: give one, or one for each"
            )
        return [_sampling(item) for item in params]

    def _limits(self, reserve: int) -> PromptLimits:
        return PromptLimits(self.vocab_size, self.max_model_len - reserve, self.max_model_len)

    def _encode_text(self, text: str) -> Sequence[int]:
        return self.required_tokenizer().encode(text)


def _sampling(params: Any) -> SamplingParams:
    if not isinstance(params, SamplingParams):
        raise RequestError(f"sampling parameters must be SamplingParams, got {type(params).__name__}")
    return params
