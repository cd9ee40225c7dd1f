# SPDX-License-Identifier: Apache-2.0
"""The host's share of a step stays within its budget."""

from __future__ import annotations

import pytest

from tramontane.bench.host import BUDGET_US, measure

pytestmark = pytest.mark.perf


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("batch", BUDGET_US)
def test_scheduling_and_bookkeeping_stay_within_their_budget(batch: int, overlap: bool) -> None:
    best = min(measure(batch, steps=500, prompt=512, groups=1, overlap=overlap)["median_us"] for _ in range(3))
    ahead = " one step ahead" if overlap else ""
    print(f"\nhost time at batch {batch}{ahead}: {best:.1f} us a step (allowed {BUDGET_US[batch]:.0f})")
    assert best < BUDGET_US[batch]
