# SPDX-License-Identifier: Apache-2.0
"""The host and the server that these tests share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "plugins" / "scripted")]

from serving import listening, make_host  # noqa: E402

from tramontane.host import Host  # noqa: E402


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    made = make_host(tmp_path_factory.mktemp("server"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def server(host: Host) -> Iterator[str]:
    from tramontane_frontend_http import make_app

    with listening(make_app(host)) as url:
        yield url
