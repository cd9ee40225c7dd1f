# SPDX-License-Identifier: Apache-2.0
"""Where keys and values lie: heads first within a block, so that attention of one head reads one stretch of memory.

The core sees each plane as [blocks, block tokens, heads, elements]; the order in memory is the strides' business.
"""

from __future__ import annotations

from torch import Tensor

from tramontane.cache.planes import entry_widths
from tramontane.cache.spec import CacheLayout, CacheSpec
from tramontane_backend_cpu.library import empty_bytes


def make_planes(layout: CacheLayout, blocks: int) -> dict[str, tuple[Tensor, ...]]:
    """Allocate the pool; layer -> keys and values, one latent, or nothing for a state.

    Every layer's block of an id lies in the page of that id in its storage, whatever other layers make of that page.
    """
    made: dict[str, tuple[Tensor, ...]] = {}
    for storage in layout.used_storages:
        pages = empty_bytes(blocks * layout.page_bytes).view(blocks, layout.page_bytes)
        pages[0].zero_()  # padding reads the null block; the others are written first, and untouched take no memory
        for name, place in layout.layers.items():
            if place.storage == storage and place.group >= 0:
                made[name] = _planes(pages, place.spec, place.block_tokens)
    return made


def _planes(pages: Tensor, spec: CacheSpec, tokens: int) -> tuple[Tensor, ...]:
    planes, offset = [], 0
    for width in entry_widths(spec):
        size = spec.kv_heads * tokens * width * spec.dtype.itemsize
        block = pages[:, offset : offset + size].view(spec.dtype).unflatten(1, (spec.kv_heads, tokens, width))
        planes.append(block.transpose(1, 2))
        offset += size
    return tuple(planes)
