# SPDX-License-Identifier: Apache-2.0
"""Constrained decoding: what a request may ask for, and the masks that keep the sampler to it.

A :class:`Constraint` is what travels with a request. Importing this package imports neither torch nor llguidance.
"""

from __future__ import annotations

from tramontane.grammar.constraint import Constraint, Kind

__all__ = ["Constraint", "Kind"]
