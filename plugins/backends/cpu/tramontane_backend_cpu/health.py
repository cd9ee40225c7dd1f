# SPDX-License-Identifier: Apache-2.0
"""What ``tramontane doctor`` says about the native library. It looks and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from tramontane.plugins import Plugins
from tramontane.records import Health, HealthStatus
from tramontane_backend_cpu.library import LibraryError, current_isa, library
from tramontane_backend_cpu.threads import thread_count

TITLE = "cpu backend"


def check(_plugins: Plugins) -> Iterator[Health]:
    """Whether the library loads, and with which instruction set and how many threads."""
    try:
        library()
    except LibraryError as error:
        hint = "models run on stock torch until then"
        yield Health(title=TITLE, status=HealthStatus.WARN, message=str(error), hint=hint)
        return
    message = f"native kernels for {current_isa()}, {thread_count()} threads"
    yield Health(title=TITLE, status=HealthStatus.OK, message=message)
