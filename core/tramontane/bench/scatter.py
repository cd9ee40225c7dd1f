# SPDX-License-Identifier: Apache-2.0
"""Named points as an SVG drawing: a plain axis across, a logarithmic one up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import ceil, floor, log10

from attrs import frozen

WIDTH, HEIGHT, MARGIN = 760, 460, 56


@frozen
class Point:
    """One thing: its name, and where it lies."""

    name: str
    across: float
    up: float
    """Above zero."""


@frozen
class _Scale:
    """Values to places."""

    low: float
    high: float
    first: float
    last: float

    def place(self, value: float) -> float:
        """Where a value lies."""
        share = (value - self.low) / (self.high - self.low or 1.0)
        return self.first + share * (self.last - self.first)


def scatter(points: Sequence[Point], *, across: str, up: str) -> str:
    """Draw points.

    Args:
        points: At least one.
        across: What the axis across measures.
        up: What the axis up measures.

    Returns:
        A whole SVG document.
    """
    low, high = floor(min(log10(p.up) for p in points)), ceil(max(log10(p.up) for p in points))
    most = ceil(max(p.across for p in points))
    x = _Scale(0, most, MARGIN, WIDTH - MARGIN / 2)
    y = _Scale(low, max(high, low + 1), HEIGHT - MARGIN, MARGIN / 2)
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *_grid(x, y, most),
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">{escape(across)}</text>',
        f'<text transform="translate(14 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{escape(up)}</text>',
        *_marks(points, x, y),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _grid(x: _Scale, y: _Scale, most: int) -> Iterator[str]:
    step = max(1, most // 10)
    for value in range(0, most + 1, step):
        at = x.place(value)
        yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y.last}" y2="{y.first}" stroke="#ddd"/>'
        yield f'<text x="{at:.1f}" y="{y.first + 16}" text-anchor="middle">{value}</text>'
    for power in range(int(y.low), int(y.high) + 1):
        at = y.place(power)
        yield f'<line x1="{x.first}" x2="{x.last}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>'
        yield f'<text x="{x.first - 6}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g}</text>'


def _marks(points: Sequence[Point], x: _Scale, y: _Scale) -> Iterator[str]:
    """Points with names; a name that would lie on another one moves down."""
    taken: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda one: (one.across, -one.up)):
        at, height = x.place(point.across), y.place(log10(point.up))
        label = height + 4
        while any(abs(at - other) < 48 and abs(label - line) < 12 for other, line in taken):
            label += 12
        taken.append((at, label))
        yield f'<circle cx="{at:.1f}" cy="{height:.1f}" r="3.5" fill="#1b6ca8"/>'
        yield f'<text x="{at + 6:.1f}" y="{label:.1f}">{escape(point.name)}</text>'
