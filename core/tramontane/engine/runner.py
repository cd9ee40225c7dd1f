# SPDX-License-Identifier: Apache-2.0
"""What the engine asks of a runner: the object that holds a model and executes steps. Protocols and records only."""

from __future__ import annotations

from typing import Any, Protocol

from attrs import define, field

from tramontane.cache.spec import CacheLayout
from tramontane.requests import EngineRequest, TokenLogprobs
from tramontane.sequence import Sequence, StepPlan


@define
class StepResult:
    """What one step computed, read back to the host."""

    token_ids: list[int]
    """One sampled id per sampling row, in the order of the plan's rows."""
    logprobs: dict[int, TokenLogprobs] = field(factory=dict)
    """Sample index -> log-probabilities, for the rows whose request asked for them."""
    prompt_logprobs: dict[int, list[TokenLogprobs]] = field(factory=dict)
    """Row index -> log-probabilities of the prompt tokens that follow each token of the row (``Row.targets``)."""
    forced: dict[int, tuple[int, ...]] = field(factory=dict)
    """Sample index -> tokens that follow the sampled one because the grammar leaves no choice. They are known from now
    on; a row of the next step, if that is launched already, samples the first of them."""
    ended: set[int] = field(factory=set)
    """Sample indices whose output is complete by its grammar."""
    faults: dict[int, str] = field(factory=dict)
    """Sample index -> why this row's sampling failed; that request ends with an error, the others go on."""
    outputs: dict[int, Any] = field(factory=dict)
    """Row index -> for task ``LOGITS`` a float32 array [count, vocab]; for task ``EMBED`` the float32 array [hidden] in
    the row that ends the prompt (pooling over chunks is the runner's business)."""


class Pending(Protocol):
    """A step that was launched and may not be done yet."""

    def result(self) -> StepResult:
        """Wait for the step and read it.

        Raises:
            Exception: The step failed; the engine ends the requests of that step and goes on.
        """
        ...


class Listener(Protocol):
    """Is told when sequences take and give up their slot."""

    def started(self, sequence: Sequence) -> None:
        """A sequence will run in the next step (or runs again after a preemption, its output then being part of
        ``tokens``). ``sequence.slot`` is its row in per-sequence storage until :meth:`dropped`. A sampler sets up its
        state here and appends what it samples by itself.

        Raises:
            Exception: It cannot run; its request ends with that error.
        """
        ...

    def dropped(self, sequence: Sequence) -> None:
        """A sequence left (finished, aborted, failed or preempted) and no step in flight has a row of it; called after
        a failed :meth:`started` too."""
        ...


class Runner(Listener, Protocol):
    """Executes steps in the order they are launched."""

    @property
    def max_model_len(self) -> int:
        """Most tokens of one sequence."""
        ...

    def check(self, request: EngineRequest) -> None:
        """Refuse a request for what is not there, such as an adapter; may be called from any thread.

        Raises:
            RequestError: It cannot be served.
        """
        ...

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""
        ...

    @property
    def cache_layout(self) -> CacheLayout:
        """What the model's layers cache."""
        ...

    @property
    def num_blocks(self) -> int:
        """Blocks in the cache storages, the null block included."""
        ...

    def launch(self, plan: StepPlan) -> Pending:
        """Start a step. It may be launched before the previous one was read: rows with ``source >= 0`` take their
        token from the previous step's sampled ids, on the device.

        What the plan's lists and tables say must be copied before this returns (see :mod:`tramontane.prepare`): the
        scheduler goes on writing to them. ``plan.state_loads`` are copied before the forward pass and
        ``plan.state_saves`` after it, in the order of launches.
        """
        ...
