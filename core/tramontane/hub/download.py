# SPDX-License-Identifier: Apache-2.0
"""Fetching the files of one commit, several at a time, so that Ctrl-C stops at once and the next run goes on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Self

from huggingface_hub import hf_hub_download

from tramontane.progress import Counter

WORKERS = 4
"""Files fetched at a time: large files fill the line by themselves, small ones gain by company."""


class _Canceled(BaseException):
    """Raised inside a worker to end its download. Not an ``Exception``, so that no retry swallows it."""


class _Tally:
    """Adds the bytes of all files to one counter, and lets them all be stopped."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.lock = threading.Lock()
        self.stop = threading.Event()

    def bar(self, name: str) -> type:
        """What the hub's client takes for a progress bar of one file."""
        tally = self

        class Bar:
            def __init__(self, *args: Any, initial: int = 0, total: int | None = None, **kwargs: Any) -> None:
                self.total, self.n = total, initial
                self.update(initial)

            def __enter__(self) -> Self:
                return self

            def __exit__(self, *exception: object) -> None:
                return None

            def update(self, n: float | None = 1) -> None:
                if tally.stop.is_set():
                    raise _Canceled
                with tally.lock:
                    tally.counter.add(int(n or 0), name)

            def __getattr__(self, attribute: str) -> Any:  # closing, refreshing, descriptions: nothing to draw
                return lambda *args, **kwargs: None

        return Bar


def fetch(
    names: Sequence[str], *, repository: str, commit: str, endpoint: str, cache_dir: Path, token: str | bool | None,
    counter: Counter,
) -> None:  # fmt: skip
    """Download files of a commit into the hub's cache. What is there already is not fetched again.

    Raises:
        KeyboardInterrupt: Within one chunk of a file, without waiting for the rest. Complete files are kept.
        Exception: Whatever the hub's client raised first.
    """
    tally = _Tally(counter)

    def one(name: str) -> None:
        hf_hub_download(
            repository, name, revision=commit, endpoint=endpoint, cache_dir=cache_dir, token=token,
            tqdm_class=tally.bar(name),
        )  # fmt: skip

    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="hub")
    try:
        futures = [pool.submit(one, name) for name in names]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        tally.stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
