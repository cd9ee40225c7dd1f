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

HALF_PRECISION = 0.04
"""Largest root-mean-square error of logits computed in bfloat16, as a share of the logits' own. An 8-bit mantissa errs
by 2^-9 (0.2 %) at each rounding; some dozens of them follow one another, and a router may choose another expert."""


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
    """In bfloat16, the error against float32 over the same (rounded) weights stays within :data:`HALF_PRECISION`.

    The subject's checkpoint must hold what :meth:`Oracle.rounded` made.
    """
    prompt = subject.prompt(LENGTH)
    engine = subject.load(dtype="bfloat16", **options)
    if engine.loaded.blueprint.dtype is not torch.bfloat16:
        raise AssertionError("the model does not run in bfloat16")
    theirs = oracle.logits(prompt)
    error = float(np.sqrt(np.square(engine.logits(prompt) - theirs).mean() / np.square(theirs).mean()))
    if not error <= HALF_PRECISION:
        raise AssertionError(f"bfloat16 errs by {error:.2%} of the logits, allowed is {HALF_PRECISION:.2%}")
