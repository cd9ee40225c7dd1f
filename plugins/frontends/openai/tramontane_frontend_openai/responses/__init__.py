# SPDX-License-Identifier: Apache-2.0
"""``/responses``: the stateful API, after the Open Responses specification (https://www.openresponses.org).

``request`` reads what clients ask for, ``items`` translates between items and messages, ``events`` turns a model's
deltas into items and events, ``run`` makes one response, ``handlers`` are the routes.
"""

from __future__ import annotations

from tramontane_frontend_openai.responses.handlers import Responses

__all__ = ["Responses"]
