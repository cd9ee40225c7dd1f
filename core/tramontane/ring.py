# SPDX-License-Identifier: Apache-2.0
"""Host memory that a device reads in the background: several blocks in turn, each written only when it was read.

The way back is here too: results of a step are copied to the host beside the steps that follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import define, field
from torch import Tensor

COPIES = 2
"""Blocks of a ring: one is written while the other is read."""


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device, without a wait: CUDA reads it from pinned memory, since for any other the
    driver may wait until the work before it is done."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@define(eq=False)
class HostRing:
    """Blocks of bytes for one device; on the host there is one block, which nobody else reads.

    Args:
        nbytes: Size of a block.
        device: Who reads them.
        copies: How many blocks; ``None`` lets the device decide.
    """

    nbytes: int
    device: torch.device
    copies: int | None = None
    blocks: list[Tensor] = field(init=False, repr=False)
    turn: int = field(default=0, init=False)
    _read: list[Any] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        count = self.copies or (1 if self.device.type == "cpu" else COPIES)
        pinned = self.device.type == "cuda"
        self.blocks = [torch.zeros(self.nbytes, dtype=torch.uint8, pin_memory=pinned) for _ in range(count)]
        self._read = [None] * count

    @property
    def block(self) -> Tensor:
        """The block whose turn it is."""
        return self.blocks[self.turn]

    def next(self) -> int:
        """Number of the block to write now; waits until the device has read what it held."""
        self.turn = (self.turn + 1) % len(self.blocks)
        read = self._read[self.turn]
        if read is not None:
            read.synchronize()
        return self.turn

    def sent(self) -> None:
        """Copies of the current block are on their way."""
        if self.device.type == "cuda":
            if self._read[self.turn] is None:
                self._read[self.turn] = torch.cuda.Event()
            self._read[self.turn].record()


@define(eq=False)
class Inbox:
    """Brings what the host writes to a device beside the work that runs there: from pinned memory, into blocks that
    take turns, by a stream of its own. On the host nothing is copied.

    Args:
        nbytes: Size of a block.
        device: Where to.
    """

    nbytes: int
    device: torch.device
    _host: HostRing = field(init=False, repr=False)
    _there: list[Tensor] = field(init=False, repr=False)
    _stream: Any = field(default=None, init=False, repr=False)
    _arrived: list[Any] = field(init=False, repr=False)
    _taken: list[Any] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._host = HostRing(self.nbytes, self.device)
        self._there = self._host.blocks
        if self.device.type == "cuda":
            self._there = [torch.zeros_like(block, device=self.device) for block in self._host.blocks]
            self._stream = torch.cuda.Stream(self.device)
            self._arrived, self._taken = ([torch.cuda.Event() for _ in self._there] for _ in range(2))
            for event in self._taken:  # the first copies come after the zeros, and after who had this memory before
                event.record(torch.cuda.current_stream(self.device))

    def next(self) -> Tensor:
        """The block of the host to write now; waits until the device has read what it held."""
        self._host.next()
        return self._host.block

    def send(self, nbytes: int) -> Tensor:
        """The beginning of the block on the device; work launched from now on finds it there."""
        turn = self._host.turn
        here, there = self._host.block[:nbytes], self._there[turn][:nbytes]
        if self._stream is not None:
            self._stream.wait_event(self._taken[turn])
            with torch.cuda.stream(self._stream):
                there.copy_(here, non_blocking=True)
                self._host.sent()
                self._arrived[turn].record()
            torch.cuda.current_stream(self.device).wait_event(self._arrived[turn])
        return there

    def taken(self) -> None:
        """All work that reads the block was launched, on the current stream."""
        if self._stream is not None:
            self._taken[self._host.turn].record(torch.cuda.current_stream(self.device))


@define(eq=False)
class Arriving:
    """Tensors on their way to the host."""

    tensors: Sequence[Tensor]
    _event: Any = None

    def wait(self) -> Sequence[Tensor]:
        """The tensors, once they are there. Steps launched later are not waited for."""
        if self._event is not None:
            self._event.synchronize()
        return self.tensors


@define(eq=False)
class Outbox:
    """Brings results to the host: from a CUDA device into pinned memory on a stream of its own."""

    device: torch.device
    _stream: Any = field(default=None, init=False, repr=False)

    @property
    def immediate(self) -> bool:
        """Whether results are there as soon as a step was launched."""
        return self.device.type == "cpu"

    def send(self, tensors: Sequence[Tensor]) -> Arriving:
        """Begin to copy. The tensors must not be written any more: memory that a next step writes is copied first."""
        if self.device.type != "cuda":
            return Arriving([one if one.device.type == "cpu" else one.cpu() for one in tensors])
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            found = []
            for one in tensors:
                found.append(torch.empty(one.shape, dtype=one.dtype, pin_memory=True).copy_(one, non_blocking=True))
                one.record_stream(self._stream)
            event = torch.cuda.Event()
            event.record()
        return Arriving(found, event)
