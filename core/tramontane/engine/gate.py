# SPDX-License-Identifier: Apache-2.0
"""Requests whose grammar is being compiled. They wait here, so that nobody else waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait

from attrs import define, field

from tramontane.errors import GrammarError
from tramontane.grammar.compiler import Compiled, GrammarCompiler
from tramontane.requests import EngineRequest


@define(eq=False)
class Gate:
    """Lets requests through in the order in which their grammars are ready."""

    compiler: GrammarCompiler | None
    """``None``: the model has no tokenizer, so nothing can be constrained."""
    _waiting: dict[str, tuple[EngineRequest, Future[Compiled]]] = field(factory=dict)

    def check(self, request: EngineRequest) -> None:
        """Refuse a constraint that can never be met.

        Raises:
            GrammarError: There is no tokenizer.
        """
        if request.sampling.constraint is not None and self.compiler is None:
            raise GrammarError("constrained output needs a tokenizer, and this model has none")

    def add(self, request: EngineRequest) -> None:
        """Have a constrained request's grammar compiled.

        Raises:
            GrammarError: Too many wait already.
        """
        if request.sampling.constraint is not None and self.compiler is not None:
            self._waiting[request.id] = (request, self.compiler.compile(request.sampling.constraint))

    def __iter__(self) -> Iterator[EngineRequest]:
        return (request for request, _ in self._waiting.values())

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def ready(self) -> list[tuple[EngineRequest, Compiled | BaseException]]:
        """Let through the requests whose grammar is compiled or refused."""
        found = []
        for request_id, (request, future) in list(self._waiting.items()):
            if future.done():
                del self._waiting[request_id]
                found.append((request, future.exception() or future.result()))
        return found

    def wait(self, seconds: float) -> None:
        """Wait until a grammar is ready, or some seconds."""
        wait([future for _, future in self._waiting.values()], seconds, FIRST_COMPLETED)

    def drop(self, request_id: str) -> EngineRequest | None:
        """Forget a request; ``None`` if it does not wait here."""
        found = self._waiting.pop(request_id, None)
        return found[0] if found else None

    def clear(self) -> list[EngineRequest]:
        """Forget all requests."""
        return [request for request_id in list(self._waiting) if (request := self.drop(request_id)) is not None]
