# SPDX-License-Identifier: Apache-2.0
"""Which types of a model fit this machine, and which to take: planned from headers, nothing is loaded.

Decoding reads every weight for every token, so the smaller of two types is taken for the faster one; no speed is
measured here, ``tramontane bench`` does that. The words for quality follow the divergences of the K types of the demo
model in ``docs/quantization.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from attrs import evolve, frozen

from tramontane.checkpoint import Checkpoint
from tramontane.load.find import choose_backend
from tramontane.load.options import LoadOptions
from tramontane.load.survey import Survey, survey
from tramontane.plugins import Plugins

SHARE = 0.9
"""Of the free memory, what weights and cache may take; activations and everything else need the rest."""
USEFUL_CONTEXT = 4096
"""A type that leaves room for fewer tokens (or for less than the model takes) does not fit."""


class Quality(StrEnum):
    """How near a type stays to the weights as they are stored."""

    BASELINE = "baseline"
    NEAR_LOSSLESS = "near-lossless"
    GOOD = "good"
    ACCEPTABLE = "acceptable"
    DEGRADED = "degraded"


class Status(StrEnum):
    """What became of a type."""

    RECOMMENDED = "recommended"
    FITS = "fits"
    TOO_LARGE = "too large"


class Profile(StrEnum):
    """What matters most."""

    QUALITY = "quality"
    """The most exact type that fits."""
    BALANCED = "balanced"
    """The most exact of at most 6.6 bits."""
    FAST = "fast"
    """The smallest that is still good."""


_BALANCED_BITS = 6.6
_OF_BITS = {8: Quality.NEAR_LOSSLESS, 6: Quality.NEAR_LOSSLESS, 5: Quality.GOOD, 4: Quality.GOOD,
            3: Quality.ACCEPTABLE, 2: Quality.DEGRADED}  # fmt: skip
_GOOD = (Quality.BASELINE, Quality.NEAR_LOSSLESS, Quality.GOOD)


@frozen(kw_only=True)
class Candidate:
    """One type."""

    quant: str | None
    """What ``--quant`` takes; ``None`` leaves the weights as they are stored."""
    bits: float
    """Per weight, over the whole model."""
    type_bits: float
    """Of the type alone: embeddings and heads may have a more exact one."""
    nbytes: int
    """Of the weights."""
    share: float
    """Of the free memory that the weights take."""
    context: int
    """Tokens that the cache has room for, at most as many as the model takes."""
    quality: Quality
    status: Status


@frozen(kw_only=True)
class Tuning:
    """All types, the most exact first."""

    backend: str
    free: int
    """Bytes."""
    max_model_len: int
    candidates: tuple[Candidate, ...]

    @property
    def recommended(self) -> Candidate | None:
        """The one to take; ``None`` where nothing fits."""
        return next((one for one in self.candidates if one.status is Status.RECOMMENDED), None)


def tune(checkpoint: Checkpoint, plugins: Plugins, options: LoadOptions, profile: Profile) -> Tuning:
    """Plan a model in every type that its backend answers for plain numbers of bits.

    A checkpoint that is stored quantized is one candidate, as it is.

    Raises:
        TramontaneError: Nobody runs the model, or the checkpoint does not fit its configuration.
    """
    backend = choose_backend(options, plugins)
    free = backend.free_memory()
    plain = survey(checkpoint, plugins, evolve(options, quant=None))
    found = [_candidate(None, 16.0, Quality.BASELINE, plain, free)]
    if not _is_quantized(checkpoint, plain):
        for bits in sorted(backend.isq_types, reverse=True):
            level = backend.isq_types[bits]
            planned = survey(checkpoint, plugins, evolve(options, quant=level.name))
            quality = _OF_BITS.get(bits, Quality.ACCEPTABLE)
            found.append(_candidate(level.name, level.bits_per_weight, quality, planned, free))
    chosen = _choice(found, profile)
    return Tuning(
        backend=backend.name,
        free=free,
        max_model_len=plain.max_model_len,
        candidates=tuple(evolve(one, status=Status.RECOMMENDED) if one is chosen else one for one in found),
    )


def _is_quantized(checkpoint: Checkpoint, plain: Survey) -> bool:
    """Whether the weights are stored in fewer than 12 bits each already."""
    return 8 * plain.bytes_weights < 12 * plain.learned_numbers or bool(checkpoint.types)


def _candidate(quant: str | None, type_bits: float, quality: Quality, planned: Survey, free: int) -> Candidate:
    left = max(0, int(free * SHARE) - planned.bytes_weights - planned.bytes_state_per_sequence)
    per_token = planned.bytes_cache_per_token
    context = planned.max_model_len if not per_token else min(planned.max_model_len, left // per_token)
    fits = planned.bytes_weights < free * SHARE and context >= min(USEFUL_CONTEXT, planned.max_model_len)
    return Candidate(
        quant=quant,
        bits=8 * planned.bytes_weights / planned.learned_numbers,
        type_bits=type_bits,
        nbytes=planned.bytes_weights,
        share=planned.bytes_weights / free if free else float("inf"),
        context=context,
        quality=quality,
        status=Status.FITS if fits else Status.TOO_LARGE,
    )


def _choice(found: Sequence[Candidate], profile: Profile) -> Candidate | None:
    """What the profile wants of the types that fit; where none is so, the most exact one."""
    fitting = [one for one in found if one.status is Status.FITS]
    wanted = fitting
    if profile is Profile.BALANCED:
        wanted = [one for one in fitting if one.type_bits <= _BALANCED_BITS]
    elif profile is Profile.FAST:
        wanted = sorted((one for one in fitting if one.quality in _GOOD), key=lambda one: one.nbytes)
    return next(iter(wanted or fitting), None)
