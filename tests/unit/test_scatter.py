# SPDX-License-Identifier: Apache-2.0
"""Drawings of measurements are well-formed, and points lie where their numbers say."""

from __future__ import annotations

from xml.etree import ElementTree

from tramontane.bench.scatter import Point, scatter

SVG = "{http://www.w3.org/2000/svg}"


def test_points_lie_where_their_numbers_say() -> None:
    points = [Point("a<b", 4.0, 0.1), Point("c", 8.0, 0.001), Point("d", 8.0, 0.001)]
    tree = ElementTree.fromstring(scatter(points, across="bits", up="nats"))
    marks = [(float(one.get("cx", "")), float(one.get("cy", ""))) for one in tree.iter(f"{SVG}circle")]
    assert marks[0][0] < marks[1][0], "more bits lie further right"
    assert marks[0][1] < marks[1][1], "less divergence lies lower"
    assert marks[1] == marks[2]
    words = {one.text: (one.get("x"), one.get("y")) for one in tree.iter(f"{SVG}text")}
    assert {"a<b", "c", "d", "bits", "nats", "0.1", "0.001"} <= set(words)
    assert words["c"] != words["d"], "names do not lie on each other"
