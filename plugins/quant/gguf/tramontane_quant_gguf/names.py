# SPDX-License-Identifier: Apache-2.0
"""Names of types as people write them: ``q4k``, ``Q4_K``, ``q4_k_m``."""

from __future__ import annotations

import re

from tramontane_quant_gguf.codecs import CODECS

_COMPACT = {name.replace("_", ""): name for name in CODECS}
_MIXTURE = re.compile(r"(?P<type>.+?)[_-]?(?P<size>xs|s|m|l|xl)")


def type_name(text: str) -> str | None:
    """The type that a text names, without regard to case and underscores; ``None`` if it names none."""
    return _COMPACT.get(re.sub(r"[_-]", "", text.lower()))


def base_type(text: str) -> str | None:
    """As :func:`type_name`, and for the names of mixtures (``q4_k_m``) the type that most of their matrices have."""
    found = type_name(text)
    if found is not None:
        return found
    mixture = _MIXTURE.fullmatch(text.lower())
    return None if mixture is None else type_name(mixture["type"])
