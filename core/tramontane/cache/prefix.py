# SPDX-License-Identifier: Apache-2.0
"""The names of cached contents: a chain of keyed cryptographic hashes.

The key of a block stands for every token up to its end and for everything else its contents depend on. Two tenants
with different salts, two cache dtypes or two generations of weights never share a key. The hash is keyed with a secret
of the process: nobody can compute two prompts that collide. Owns the hashing only; who finds what is the manager's.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from hashlib import blake2b

KEY_BYTES = 32


class PrefixHasher:
    """Makes the keys of one engine.

    Args:
        namespace: What all contents of this cache depend on: cache dtype, layout, adapter generation.
        secret: Up to 64 bytes; ``None`` draws a fresh one.
    """

    def __init__(self, namespace: bytes = b"", secret: bytes | None = None) -> None:
        self._blank = blake2b(key=secret or os.urandom(64), digest_size=KEY_BYTES, person=b"tramontane-cache")
        self._namespace = namespace
        self.generation = 0
        """Part of every key; raising it makes all earlier contents unfindable."""

    def root(self, *extra: bytes) -> bytes:
        """The parent of a sequence's first block.

        Args:
            extra: What sets this sequence's contents apart: a tenant's salt, an adapter's name and generation.
        """
        state = self._blank.copy()
        for part in (self._namespace, self.generation.to_bytes(8, "little"), *extra):
            state.update(len(part).to_bytes(8, "little"))
            state.update(part)
        return state.digest()

    def extend(self, parent: bytes, ids: Sequence[int], extra: bytes = b"") -> bytes:
        """The key of the block that follows ``parent``.

        Args:
            parent: The key before it: the root or the previous block's key.
            ids: The block's token ids; every block of a chain has equally many.
            extra: What else the block's contents depend on: hash and span of media whose features replace its tokens.
        """
        state = self._blank.copy()
        state.update(parent)
        state.update(array("q", ids).tobytes())
        state.update(extra)
        return state.digest()
