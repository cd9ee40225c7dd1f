# SPDX-License-Identifier: Apache-2.0
"""What sampling gives back: tokens on the device at once, everything else when the host asks for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from attrs import define, field
from torch import Tensor

from tramontane.errors import EngineError
from tramontane.requests import TokenLogprobs
from tramontane.ring import Arriving, Outbox
from tramontane.sampler.select import top


@define(eq=False)
class Observed:
    """The unfiltered distributions of the rows that want log-probabilities, as the model gave them.

    W rows that want them, N the most alternatives any of them wants.
    """

    rows: list[int]
    """Rows of the step."""
    wanted: list[int]
    """How many alternatives each reports."""
    logits_WV: Tensor
    norm_W1: Tensor
    """log-sum-exp of the logits."""
    top_logprobs_WN: Tensor
    top_ids_WN: Tensor

    @classmethod
    def of(cls, logits_WV: Tensor, rows: Sequence[int], wanted: Sequence[int]) -> Observed:
        """Look at logits before anything changes them. They must stay as they are until :meth:`report`."""
        logits_WV = logits_WV.clamp(max=torch.finfo(torch.float32).max)
        norm_W1 = logits_WV.logsumexp(dim=1, keepdim=True)
        values_WN, ids_WN = top(logits_WV, max(wanted)) if max(wanted) else (logits_WV[:, :0], logits_WV[:, :0])
        return cls(list(rows), list(wanted), logits_WV, norm_W1, values_WN - norm_W1, ids_WN)

    def report(self, tokens_W: Tensor) -> Report:
        """What there is to say about the chosen tokens, still on the device."""
        chosen_W1 = self.logits_WV.gather(1, tokens_W[:, None])
        return Report(
            self.rows,
            self.wanted,
            tokens_W,
            (chosen_W1 - self.norm_W1)[:, 0],
            (self.logits_WV > chosen_W1).sum(dim=1) + 1,
            self.top_logprobs_WN,
            self.top_ids_WN,
        )


@define(eq=False)
class Report:
    """Log-probabilities on the device; none of it is a view of the model's logits."""

    rows: list[int]
    wanted: list[int]
    tokens_W: Tensor
    logprobs_W: Tensor
    ranks_W: Tensor
    top_logprobs_WN: Tensor
    top_ids_WN: Tensor

    def read(self) -> list[TokenLogprobs]:
        """The same as records. Waits for the device."""
        columns = (self.tokens_W, self.logprobs_W, self.ranks_W, self.top_ids_WN, self.top_logprobs_WN)
        return [
            TokenLogprobs(
                token_id=token,
                logprob=logprob,
                rank=rank,
                top=tuple(zip(top_ids[:count], top_logprobs[:count], strict=True)),
            )
            for count, token, logprob, rank, top_ids, top_logprobs in zip(
                self.wanted, *(column.tolist() for column in columns), strict=True
            )
        ]


@define(eq=False)
class Coming:
    """Draws of one step on their way to the host."""

    _sampled: Sampled
    _arriving: Arriving

    def wait(self) -> Sampled:
        """The same draws on the host; waits for this step and for none after it."""
        tokens, peak, *columns = self._arriving.wait()
        report = self._sampled._report
        if report is not None:
            report = Report(report.rows, report.wanted, *columns)
        return Sampled(tokens, peak, report, self._sampled._failed)


@define(eq=False)
class Sampled:
    """The draws of one step."""

    tokens: Tensor
    """int64 [L], on the device. The sampler never waits for it. Meaningless in rows with a fault."""
    _peak_L: Tensor
    """The largest logit of each row after all changes: NaN or -inf tell a row nothing can be drawn from."""
    _report: Report | None = None
    _failed: Mapping[int, EngineError] = field(factory=dict)
    """Rows whose logits processor raised."""

    def send(self, outbox: Outbox) -> Coming:
        """Begin to bring them to the host."""
        report = self._report
        columns = () if report is None else (
            report.tokens_W, report.logprobs_W, report.ranks_W, report.top_logprobs_WN, report.top_ids_WN
        )  # fmt: skip
        return Coming(self, outbox.send([self.tokens, self._peak_L, *columns]))

    @property
    def logprobs(self) -> dict[int, TokenLogprobs]:
        """Row -> natural log-probabilities of the model's own distribution, where asked for. Waits for the device."""
        return dict(zip(self._report.rows, self._report.read(), strict=True)) if self._report is not None else {}

    @property
    def faults(self) -> dict[int, EngineError]:
        """Row -> why it has no token. Waits for the device. Other rows are not affected."""
        found = dict(self._failed)
        for row, peak in enumerate(self._peak_L.tolist()):
            if row in found:
                continue
            if math.isnan(peak):
                found[row] = EngineError("the model's logits are not numbers (NaN)", hint="try another dtype")
            elif peak == -math.inf:
                found[row] = EngineError("every token was forbidden: biases, masks and processors left none to draw")
        return found


def prompt_logprobs(logits_RV: Tensor, next_ids_R: Tensor | Sequence[int], top: int) -> list[TokenLogprobs]:
    """Log-probabilities of given next tokens.

    Args:
        logits_RV: One row per prompt position. Not changed.
        next_ids_R: The token that follows each position.
        top: How many of the most likely tokens to report beside it.
    """
    ids_R = torch.as_tensor(next_ids_R, dtype=torch.int64).to(logits_RV.device)
    rows = list(range(ids_R.shape[0]))
    return Observed.of(logits_RV, rows, [top] * len(rows)).report(ids_R).read() if rows else []
