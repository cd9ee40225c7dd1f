# SPDX-License-Identifier: Apache-2.0
"""Draws to time, and how far a drawn token is from the one that its number means. Legend: R rows, V vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from attrs import evolve
from torch import Tensor

from tramontane.sampler.select import Knobs, Part, wide
from tramontane.sampler.state import Path
from tramontane_backend_cuda.bench.cases import Bench, Case
from tramontane_backend_cuda.bench.clock import copies_for

SETTINGS: Mapping[str, tuple[Path, float, int, float]] = {
    "greedy": (Path.GREEDY, 1.0, 0, 1.0), "temperature 0.8": (Path.FULL, 0.8, 0, 1.0),
    "top-k 20, top-p 0.95": (Path.TOP_K, 0.6, 20, 0.95), "top-k 1000": (Path.TOP_K, 0.8, 1000, 1.0),
    "top-p 0.9": (Path.TOP_P, 0.8, 0, 0.9), "top-p 0.99": (Path.TOP_P, 1.5, 0, 0.99),
}  # fmt: skip
"""Path, temperature, top-k and top-p by the name in the table."""
NEAR = 2e-5
"""Share of the mass by which sums in float32 and in float64 may differ: three tokens of a flat row of 152,000."""


def draws(bench: Bench, rows: int, vocab: int) -> Iterator[Case]:
    """Every way to draw, flat logits and peaked ones; and all of them in one step."""
    device, nbytes = bench.backend.device, 4 * rows * vocab
    for spread, scale in (("flat", 1.0), ("peaked", 3.0)):
        logits = [torch.randn(rows, vocab, device=device) * scale for _ in range(copies_for(nbytes))]
        uniform_R = torch.rand(rows, device=device, dtype=wide(device))
        for name, path, knobs in _asked(rows, vocab, device):
            given = (None, None) if path is Path.GREEDY else (knobs, uniform_R)
            yield Case(
                f"draw {name}, {spread} R={rows} V={vocab}",
                [partial(bench.backend.draw, path, one, *given) for one in logits],
                nbytes,
                0.0,
                partial(_off, bench, path, logits[0], knobs, uniform_R),
            )


def _asked(rows: int, vocab: int, device: torch.device) -> Iterator[tuple[str, Path | None, Knobs]]:
    for name, setting in SETTINGS.items():
        yield name, setting[0], _knobs([setting] * rows, vocab, device)
    settings = [list(SETTINGS.values())[row % len(SETTINGS)] for row in range(rows)]
    if rows > 1:
        knobs = _knobs(settings, vocab, device)
        path_R = torch.tensor([one[0].value for one in settings], device=device)
        parts = [Part(path, None, None if path is Path.GREEDY else knobs) for path in Path]
        yield "all ways", None, evolve(knobs, path_R=path_R, parts=parts)


def _knobs(settings: list[tuple[Path, float, int, float]], vocab: int, device: torch.device) -> Knobs:
    _, temperature, top_k, top_p = zip(*settings, strict=True)
    real = wide(device)
    whole = [min(k or vocab, vocab) for k in top_k]
    return Knobs(
        torch.tensor(temperature, device=device), torch.tensor(whole, device=device),
        torch.tensor(top_p, dtype=real, device=device), torch.zeros(len(settings), dtype=real, device=device),
        max(whole), any_min_p=False,
    )  # fmt: skip


def _off(bench: Bench, path: Path | None, logits_RV: Tensor, knobs: Knobs, uniform_R: Tensor) -> float:
    """0 where every token is the one that its number means; else the share of the mass between the two."""
    given = (None, None) if path is Path.GREEDY else (knobs, uniform_R)
    tokens_R, peak_R = bench.backend.draw(path, logits_RV, *given)
    if not torch.equal(peak_R, logits_RV.amax(dim=1)):
        return 1.0
    found = distance(path, logits_RV, knobs, uniform_R, tokens_R)
    return found if found > NEAR else 0.0


def distance(path: Path | None, logits_RV: Tensor, knobs: Knobs, uniform_R: Tensor, tokens_R: Tensor) -> float:
    """How far the numbers are from the ranges of the drawn tokens, in float64: the largest share of the mass."""
    found = 0.0
    for row, logits_V in enumerate(logits_RV):
        own = Path(int(knobs.path_R[row])) if path is None and knobs.path_R is not None else path
        one = knobs.pick(torch.tensor([row], device=logits_RV.device))
        token = int(tokens_R[row])
        if own is Path.GREEDY:
            off = float(token != int((logits_V == logits_V.amax()).nonzero()[0, 0]))
        else:
            off = _distance(own, logits_V.double(), one, float(uniform_R[row]), token)
        found = max(found, off)
    return found


def _distance(path: Path | None, logits_V: Tensor, knobs: Knobs, number: float, token: int) -> float:
    ids_V = torch.arange(len(logits_V), device=logits_V.device)
    if path is not Path.FULL:
        ids_V = logits_V.sort(descending=True, stable=True).indices
    scaled_V = logits_V[ids_V].clamp(max=torch.finfo(torch.float32).max)
    weights_V = ((scaled_V - scaled_V.amax()) / knobs.temperature_R.double()).exp()
    if path is Path.TOP_K:
        weights_V[int(knobs.top_k_R) :] = 0
    kept_V = weights_V >= knobs.min_p_R
    if path is not Path.FULL and float(knobs.top_p_R) < 1.0:
        kept_V &= weights_V.cumsum(0) - weights_V < knobs.top_p_R * weights_V.sum()
    kept_V[weights_V.argmax()] = True
    ends_V = (weights_V * kept_V).cumsum(0)
    ends_V = ends_V / ends_V[-1]
    place = int((ids_V == token).nonzero()[0, 0])
    begin = float(ends_V[place - 1]) if place else 0.0
    return max(0.0, begin - number, number - float(ends_V[place]))


__all__ = ["SETTINGS", "distance", "draws"]
