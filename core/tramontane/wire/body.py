# SPDX-License-Identifier: Apache-2.0
"""Bodies of requests: JSON, read strictly. What two readers could understand differently is refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from tramontane.wire.errors import FieldError

MAX_DEPTH = 64
"""Nesting of a body; deeper ones are refused before anything walks them."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def decode(raw: bytes) -> Any:
    """The JSON value that a body holds.

    Raises:
        FieldError: It is not UTF-8 or not JSON, states a key twice, holds NaN, infinity or half a character, or is
            nested more than ``MAX_DEPTH`` levels deep.
    """
    try:
        text = raw.decode("utf-8")
        found = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        raise FieldError("the body is not valid UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise FieldError(f"the body is not valid JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise FieldError(f"the body is nested more than {MAX_DEPTH} levels deep") from None
    except ValueError:  # Python refuses whole numbers of more than 4300 digits
        raise FieldError("the body holds a number that is too long") from None
    if _is_deep(found):
        raise FieldError(f"the body is nested more than {MAX_DEPTH} levels deep")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise FieldError(f"the body states {twice[:80]!r} twice", param=twice[:80])
    return found


def _constant(name: str) -> Any:
    raise FieldError(f"the body is not valid JSON: {name} is no number")


def _is_deep(value: Any) -> bool:
    """Level by level, so that the depth costs no stack."""
    current = [value]
    for _ in range(MAX_DEPTH):
        inside: list[Any] = []
        for one in current:
            if isinstance(one, dict):
                inside += one.values()
            elif isinstance(one, list):
                inside += one
        current = [one for one in inside if isinstance(one, dict | list)]
        if not current:
            return False
    return True
