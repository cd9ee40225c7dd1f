# SPDX-License-Identifier: Apache-2.0
"""The sampling fields that every frontend takes under the same names, whatever its vendor's own are called."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from tramontane.errors import RequestError
from tramontane.grammar import Constraint
from tramontane.wire.errors import FieldError
from tramontane.wire.fields import identifier

if TYPE_CHECKING:
    from tramontane.api.settings import RequestSettings
    from tramontane.requests import SamplingParams

_DIRECT = (
    "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty",
    "dry_multiplier", "dry_base", "dry_allowed_length", "dry_sequence_breakers", "stop_token_ids", "ignore_eos",
    "min_tokens",
)  # fmt: skip
_MAKERS: dict[str, tuple[Callable[[Any], Constraint], Any]] = {
    "regex": (Constraint.regex, str),
    "lark": (Constraint.lark, str),
    "json_schema": (Constraint.json_schema, Mapping),
    "llguidance": (Constraint.llguidance, Mapping),
    "choice": (Constraint.choice, list),
}


@frozen(kw_only=True)
class Grammar:
    """``grammar``: what the output must look like."""

    type: Literal["regex", "lark", "json_schema", "llguidance", "choice"]
    value: Any

    def constraint(self) -> Constraint:
        """As sampling takes it.

        Raises:
            FieldError: The value is not of the type's kind.
            GrammarError: It is too large or nested too deeply.
        """
        make, kind = _MAKERS[self.type]
        if not isinstance(self.value, kind) or (kind is list and not all(isinstance(v, str) for v in self.value)):
            shape = {str: "a text", Mapping: "an object", list: "a list of texts"}[kind]
            raise FieldError(f"a grammar of type {self.type} has {shape} as its value", param="grammar.value")
        return make(self.value)


@frozen(kw_only=True)
class SamplingFields:
    """``None`` is the model's default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_sequence_breakers: tuple[str, ...] | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop_token_ids: tuple[int, ...] | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    grammar: Grammar | None = None
    adapter: str | None = None
    """An adapter of the model to answer with; it can be named as the model as well."""
    cache_salt: str | None = None
    """Only requests with the same salt share cached beginnings."""

    def parameters(self) -> dict[str, Any]:
        """The given ones, named as :class:`~tramontane.requests.SamplingParams` has them.

        Raises:
            FieldError: One that cannot be translated.
        """
        found = {name: getattr(self, name) for name in _DIRECT if getattr(self, name) is not None}
        if self.logit_bias is not None:
            found["logit_bias"] = _bias(self.logit_bias)
        if self.seed is not None:
            if not -(2**63) <= self.seed < 2**64:
                raise FieldError("seed must fit 64 bits", param="seed")
            found["seed"] = self.seed % 2**64  # clients send negative ones
        if self.grammar is not None:
            found["constraint"] = self.grammar.constraint()
        return found

    @staticmethod
    def made(defaults: Callable[..., SamplingParams], given: Mapping[str, Any], **names: str) -> SamplingParams:
        """The parameters, with the model's defaults filled in by ``defaults(**given)``.

        Args:
            defaults: Makes them, such as :meth:`tramontane.AsyncLLM.default_params`.
            given: As of :meth:`parameters`.
            names: What the client calls those that it calls otherwise.

        Raises:
            FieldError: Some are out of range, by the client's names; the first is named as its field.
        """
        try:
            return defaults(**given)
        except RequestError as error:
            said = error.message
            for ours, theirs in names.items():
                said = re.sub(rf"\b{ours}\b", theirs, said)
            raise FieldError(said, param=names.get(error.param or "", error.param)) from None

    def settings(self, tenant: bytes = b"") -> RequestSettings:
        """What a request says beside its prompt and its parameters: the salt of the prefix cache, which is the
        tenant's, refined by the client's own, and the adapter."""
        given = b"" if self.cache_salt is None else identifier(self.cache_salt, "cache_salt").encode()
        found: RequestSettings = {"salt": tenant + b"\0" + given if tenant or given else b""}
        if self.adapter is not None:
            found["adapter"] = self.adapter
        return found


def _bias(given: Mapping[str, float]) -> dict[int, float]:
    try:
        return {int(token): float(bias) for token, bias in given.items()}
    except ValueError:
        raise FieldError("logit_bias must map token ids to numbers", param="logit_bias") from None
