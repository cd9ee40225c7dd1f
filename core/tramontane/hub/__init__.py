# SPDX-License-Identifier: Apache-2.0
"""Model reference to local files.

Owns what is fetched from the hub, with which token, and what is said when that fails. It opens nothing: reading the
files is :mod:`tramontane.checkpoint`'s business. A local path never touches the network.
"""

from __future__ import annotations

from tramontane.hub.choice import choose_files
from tramontane.hub.listing import Announce, Listing, unannounced
from tramontane.hub.resolve import resolve
from tramontane.hub.tokens import read_token

__all__ = ["Announce", "Listing", "choose_files", "read_token", "resolve", "unannounced"]
