# SPDX-License-Identifier: Apache-2.0
"""Module names that a checkpoint's configuration gives by regular expression.

Such expressions come from strangers and are matched against every module, so only those are taken whose matching cannot
explode: no repeated group, few repetitions (Python's engine tries them in all combinations), all of it short.
"""

from __future__ import annotations

import re
from functools import lru_cache

from tramontane.errors import ConfigError

MAX_LENGTH = 1000
MAX_REPETITIONS = 5
"""With five, matching a name of sixty characters takes some milliseconds at the worst."""

_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<repeat>[*+]|\{\d*,?\d*\})|.", re.DOTALL)


@lru_cache(maxsize=4096)
def name_pattern(pattern: str) -> re.Pattern[str]:
    """The compiled expression.

    Raises:
        ConfigError: It is no regular expression, or one that could take forever.
    """
    if len(pattern) > MAX_LENGTH:
        raise ConfigError(f"a pattern of module names has {len(pattern)} characters, over the limit of {MAX_LENGTH}")
    repetitions, before = 0, ""
    for token in _TOKEN.finditer(pattern):
        if token["repeat"]:
            repetitions += 1
            if before == ")" or repetitions > MAX_REPETITIONS:
                raise ConfigError(
                    f"the pattern {pattern!r} of module names could take forever to match",
                    hint=f"at most {MAX_REPETITIONS} repetitions are taken, and none of a group",
                )
        before = token[0]
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"the pattern {pattern!r} of module names is no regular expression: {error}") from error
