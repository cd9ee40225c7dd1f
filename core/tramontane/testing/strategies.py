# SPDX-License-Identifier: Apache-2.0
"""Strategies for property tests. ``hypothesis`` is a development dependency; nothing outside tests imports this."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from tramontane.tensors import AXES, Ranges

STEPS = (1, 2, 8, 16, 32, 64, 128)
"""Cuts lie at multiples of one of these, so that some fall on the boundaries of any blocks."""


@st.composite
def slices(draw: st.DrawFn, shape: Sequence[int]) -> tuple[str, Ranges]:
    """An axis of a weight of this shape, and up to three ranges on it; perhaps none, perhaps everything."""
    axis = draw(st.sampled_from(AXES[-len(shape) :]))
    size = shape[AXES[-len(shape) :].index(axis)]
    step = draw(st.sampled_from(STEPS))
    points = sorted({min(draw(st.integers(0, size // step)) * step, size) for _ in range(2)} | {size})
    return axis, tuple((a, b) for a, b in zip([0, *points], points, strict=False) if a < b and draw(st.booleans()))
