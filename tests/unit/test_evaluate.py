# SPDX-License-Identifier: Apache-2.0
"""Perplexity and divergence of known predictions."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest

from tramontane.errors import RequestError
from tramontane.evaluate import DivergenceMeter, PerplexityMeter, chunks


def test_chunks_drop_the_rest_and_begin_with_the_first_id() -> None:
    assert list(chunks(range(10, 20), 4, 1)) == [[1, 11, 12, 13], [1, 15, 16, 17]]
    assert list(chunks(range(10, 20), 4, None, 1)) == [[10, 11, 12, 13]]
    with pytest.raises(RequestError, match="3 tokens, fewer than one chunk of 4"):
        list(chunks([1, 2, 3], 4, None))
    with pytest.raises(RequestError, match="too short"):
        list(chunks([1, 2, 3], 2, None))


def test_perplexity_counts_the_second_half() -> None:
    """Rows 0 and 1 predict badly and do not count; row 2 gives id 3 a half, row 3 predicts nothing."""
    logits = np.full((4, 4), -50.0, np.float32)
    logits[2] = np.log([0.25, 0.125, 0.125, 0.5])
    meter = PerplexityMeter()
    meter.add([0, 1, 2, 3], logits)
    assert meter.result().value == pytest.approx(2.0)
    assert meter.result().tokens == 1
    logits[2] = np.log([0.25, 0.125, 0.5, 0.125])
    meter.add([0, 1, 2, 3], logits)
    assert meter.result().value == pytest.approx(exp((log(2) + log(8)) / 2))
    assert meter.result().error == pytest.approx(4.0 * log(2))  # both losses lie log 2 from their mean, n - 1 = 1


def test_divergence_of_two_distributions() -> None:
    base, model = np.log([0.5, 0.25, 0.125, 0.125]), np.log([0.25, 0.5, 0.125, 0.125])
    rows = [np.tile(one.astype(np.float32), (4, 1)) for one in (base, model)]
    meter = DivergenceMeter()
    meter.add([0, 1, 2, 3], rows[0], rows[1])
    assert meter.result().mean == pytest.approx(0.25 * log(2))
    assert meter.result().same_top == 0.0
    meter.add([0, 1, 2, 3], rows[0], rows[0])
    assert (meter.result().mean, meter.result().same_top) == (pytest.approx(0.125 * log(2)), 0.5)
    with pytest.raises(RequestError, match="different vocabularies"):
        meter.add([0, 1, 2, 3], rows[0], rows[0][:, :2])
