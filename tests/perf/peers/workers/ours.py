# SPDX-License-Identifier: Apache-2.0
"""This engine with one model loaded: a line of JSON in, a line of JSON out, so that measurements can be interleaved."""

from __future__ import annotations

import ctypes
import json
import sys
import time

from answers import peak, say

STARTED = time.time()


def main() -> None:
    """``ours.py MODEL MAX_MODEL_LEN``; then lines ``{"test": "pp"|"tg"|"read", "tokens": N, "depth": N}``."""
    from tramontane.api import LLM
    from tramontane.cli.measure import Bench, Case

    model, longest = sys.argv[1], int(sys.argv[2])
    llm = LLM(model, max_model_len=longest, max_num_seqs=8, prefix_cache=False)
    bench = Bench(llm)
    bench.once(Case(1, 0, 0, 1))
    say({"ready": time.time() - STARTED, "peak": peak()})
    for line in sys.stdin:
        asked = json.loads(line)
        tokens, depth = asked.get("tokens", 0), asked.get("depth", 0)
        if asked["test"] == "read":
            say({"rate": read_rate()})
        else:
            case = Case(tokens, 0, depth, 1) if asked["test"] == "pp" else Case(0, tokens, depth, 1)
            say({"rate": bench.once(case)[0], "peak": peak()})


def read_rate(size: int = 512 << 20) -> float:
    """GB/s that the backend's read kernel moves, with the threads and pages of the weights."""
    from tramontane_backend_cpu.library import default_pool, empty_bytes, library

    global ROOM
    if ROOM is None:
        ROOM = empty_bytes(size)
        ROOM.fill_(1)
    rates = []
    for _ in range(4):
        start = time.perf_counter()
        library().tm_read(default_pool().handle, ctypes.c_void_p(ROOM.data_ptr()), size)
        rates.append(size / (time.perf_counter() - start) / 1e9)
    return sorted(rates)[len(rates) // 2]


ROOM = None


if __name__ == "__main__":
    main()
