# SPDX-License-Identifier: Apache-2.0
"""How a host backend lays keys and values into the pages of the pool.

A plane is one kind of content of one layer: [blocks, block tokens, heads, elements of an entry]. Where all layers that
share the pages agree on the bytes of each plane, planes lie one after the other and each is contiguous; otherwise a
page holds its planes side by side, so that a block id means the same bytes to every group.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tramontane.cache.entries import decode, encode, entry_elements
from tramontane.cache.spec import CacheKind, CacheLayout, CacheSpec


def make_planes(layout: CacheLayout, blocks: int, device: torch.device) -> dict[str, tuple[Tensor, ...]]:
    """Allocate the pool and give each layer its planes: keys and values, one latent, or nothing for a state."""
    made: dict[str, tuple[Tensor, ...]] = {}
    for storage in layout.used_storages:
        # Not zeroed: pages are written before they are read, and untouched ones take no memory.
        pages = torch.empty(blocks, layout.page_bytes, dtype=torch.uint8, device=device)
        pages[0].zero_()
        members = [(n, place) for n, place in layout.layers.items() if place.storage == storage and place.group >= 0]
        alike = len({_plane_bytes(place.spec, place.block_tokens) for _, place in members}) == 1
        for name, place in members:
            made[name] = _planes(pages, place.spec, place.block_tokens, apart=alike)
    return made


def entry_widths(spec: CacheSpec) -> tuple[int, ...]:
    """Elements of an entry of each plane."""
    features = (spec.head_dim,) if spec.kind is CacheKind.LATENT or spec.values == 0 else (spec.head_dim, spec.values)
    return tuple(entry_elements(count, spec.dtype) for count in features)


def _plane_bytes(spec: CacheSpec, tokens: int) -> tuple[int, ...]:
    return tuple(tokens * spec.kv_heads * width * spec.dtype.itemsize for width in entry_widths(spec))


def _planes(pages: Tensor, spec: CacheSpec, tokens: int, *, apart: bool) -> tuple[Tensor, ...]:
    blocks, flat = pages.shape[0], pages.view(-1)
    planes, offset = [], 0
    for width, size in zip(entry_widths(spec), _plane_bytes(spec, tokens), strict=True):
        if apart:
            raw = flat[blocks * offset : blocks * (offset + size)].view(blocks, size)
        else:
            raw = pages[:, offset : offset + size]
        planes.append(raw.view(spec.dtype).unflatten(1, (tokens, spec.kv_heads, width)))
        offset += size
    return tuple(planes)


def write(planes: Sequence[Tensor], slots_T: Tensor, news: Sequence[Tensor]) -> None:
    """Store one tensor per plane at the tokens' slots (block * block tokens + offset)."""
    for plane, new in zip(planes, news, strict=True):
        entries = encode(new, plane.dtype)
        if plane.is_contiguous():
            bits = _copyable(plane).flatten(0, 1)
            bits.index_copy_(0, slots_T, entries.view(bits.dtype))
        else:
            size = plane.shape[1]
            plane[slots_T // size, slots_T % size] = entries


def gather(plane: Tensor, slots: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Contents of a plane at the slots: [..., heads, features], in ``dtype``."""
    if plane.is_contiguous():
        return decode(plane.flatten(0, 1)[slots], dtype)
    size = plane.shape[1]
    return decode(plane[slots // size, slots % size], dtype)


def _copyable(plane: Tensor) -> Tensor:
    """Torch does not copy 8-bit floats by index."""
    return plane.view(torch.uint8) if plane.dtype is torch.float8_e4m3fn else plane
