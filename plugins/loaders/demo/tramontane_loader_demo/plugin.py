# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-loader-demo: the reference ``demo`` means the folder that ships in this package."""

from __future__ import annotations

from pathlib import Path

from tramontane import hookimpl
from tramontane.records import LoaderSpec

REFERENCE = "demo"
FOLDER = Path(__file__).parent / "model"


@hookimpl
def tramontane_loaders() -> list[LoaderSpec]:
    """The demo's own loader: it knows which files must be there."""
    return [
        LoaderSpec(
            name=REFERENCE,
            open="tramontane_loader_demo.loader:open_demo",
            detect="tramontane_loader_demo.loader:is_demo",
            priority=100,
        )
    ]


@hookimpl
def tramontane_resolve_model(ref: str) -> Path | None:
    """``demo`` is the packaged folder. A folder of that name is still reached as ``./demo``."""
    return FOLDER if ref == REFERENCE else None
