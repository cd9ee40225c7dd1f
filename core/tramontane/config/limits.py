# SPDX-License-Identifier: Apache-2.0
"""What a configuration may say and what no model here can do: refused by name, never ignored."""

from __future__ import annotations

from typing import Any

import attrs

from tramontane.errors import ConfigError


def only(*values: Any) -> Any:
    """An attrs field that admits ``values`` alone; the first is its default.

    For switches of which one position is supported: ``use_bidirectional_attention: bool | None = only(False, None)``.
    """

    def check(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value not in values:
            raise ConfigError(f"{attribute.name} = {value!r} is not supported (only {', '.join(map(repr, values))})")

    return attrs.field(default=values[0], validator=check)
