# SPDX-License-Identifier: Apache-2.0
"""Our models against ``transformers``: logits, greedy tokens, and what half precision costs.

One forward pass of the other side over prompt and continuation checks both: its logits of all tokens, and, token by
token, that greedy decoding would have chosen the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tramontane.testing.invariants import LENGTH, NEW, PROMPT, Subject, assert_close, teacher_forced
from tramontane.testing.oracle import Oracle

HALF_PRECISION = 0.03
"""Largest root-mean-square error of a token's logits computed in bfloat16, as a share of the logits' own; half of the
tokens must keep to it. An 8-bit mantissa errs by 2^-9 (0.2 %) at each rounding, and some dozens follow one another."""
ALL_TOKENS = 0.12
"""The same over all tokens together: a router may choose another expert for some, and then nothing is alike."""


def assert_parity(subject: Subject, oracle: Oracle) -> None:
    """Logits of all tokens within the subject's tolerance, and greedy tokens equal up to ties.

    Raises:
        AssertionError: They are not.
    """
    prompt = subject.prompt()
    (found,) = subject.plain.greedy([prompt], NEW)
    text = prompt + found
    theirs = oracle.logits(text)
    assert_close(subject.plain.logits(text), theirs, subject.tolerance, "logits against transformers")
    teacher_forced(found, theirs[PROMPT - 1 : -1], subject.tolerance, "greedy tokens against transformers")


def assert_half_precision(subject: Subject, oracle: Oracle, **options: Any) -> None:
    """In bfloat16, the error against float32 over the same (rounded) weights keeps to the bounds above.

    The subject's checkpoint must hold what :meth:`Oracle.rounded` made.
    """
    prompt = subject.prompt(LENGTH)
    engine = subject.load(dtype="bfloat16", **options)
    if engine.loaded.blueprint.dtype is not torch.bfloat16:
        raise AssertionError("the model does not run in bfloat16")
    theirs = oracle.logits(prompt)
    wrong_T, size_T = np.square(engine.logits(prompt) - theirs).mean(-1), np.square(theirs).mean(-1)
    usual = float(np.median(np.sqrt(wrong_T / size_T)))
    overall = float(np.sqrt(wrong_T.mean() / size_T.mean()))
    if not (usual <= HALF_PRECISION and overall <= ALL_TOKENS):
        raise AssertionError(
            f"bfloat16 errs by {usual:.2%} of a token's logits and by {overall:.2%} over all tokens; "
            f"allowed are {HALF_PRECISION:.2%} and {ALL_TOKENS:.2%}"
        )
