# SPDX-License-Identifier: Apache-2.0
"""Debian's Chromium before a server of scripted models. Without the browser these tests are skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tramontane.host import Host
from tramontane.plugins import installed

pytest.importorskip("tramontane_frontend_web", reason="serves the chat page")
pytest.importorskip("tramontane_frontend_openai", reason="the page calls the OpenAI API")
demo = pytest.importorskip("tramontane_loader_demo.plugin", reason="lends its tokenizer")
sync_api = pytest.importorskip("playwright.sync_api", reason="drives the browser")

import tramontane_scripted.plugin  # noqa: E402
from serving import listening  # noqa: E402
from tramontane_scripted.checkpoint import Script, write_scripted  # noqa: E402
from tramontane_scripted.talking import TEMPLATE, write_talking  # noqa: E402

CHROMIUM = os.environ.get("TRAMONTANE_CHROMIUM", "/usr/bin/chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip
SCREENSHOTS = Path(os.environ.get("TRAMONTANE_SCREENSHOTS", Path(__file__).parents[4] / ".cache" / "screenshots"))
"""Where pictures of the page are kept, for people to look at."""
WRITTEN = """## Two lists

Take the *smaller* **head**:

```python
def merge(a, b):
    return sorted(a + b)
```

| case | steps |
|---|--:|
| empty | 0 |

1. It is `stable`.

See [more](https://example.com/).
"""
HOSTILE = """Hi <script>window.hacked = 1</script>

<img src="https://evil.test/a" onerror="window.hacked = 2"> ![pixel](https://evil.test/b?q=x)

[click](javascript:window.hacked=3) <a href="javascript:window.hacked=4">me</a>

<iframe src="https://evil.test/"></iframe>

Still here.
"""
BRIEF = "It is sunny."


def make_host(folder: Path) -> Host:
    """Models that say one thing each: ``brief``, ``writer``, ``hostile``, ``endless``; and ``talker``, which thinks and
    calls."""
    host = Host(installed().extended([tramontane_scripted.plugin]), state_dir=folder / "state")
    common: dict[str, Any] = {"num_blocks": 1600, "chat_format": "hermes"}
    scripts = {"brief": BRIEF, "writer": WRITTEN, "hostile": HOSTILE, "endless": "word and " * 9000}
    for name, text in scripts.items():
        made = write_scripted(
            folder / name, demo.FOLDER, Script(replies=[text]), chat_template=TEMPLATE, max_positions=20_000
        )
        host.add(name, str(made), **common)
    host.add("talker", str(write_talking(folder / "talker", demo.FOLDER)), **common)
    return host


@pytest.fixture(scope="session")
def web_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    made = make_host(tmp_path_factory.mktemp("web"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser. Its driver owns an event loop of this thread, so it is gone before other modules' tests."""
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"there is no {CHROMIUM}: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_url(web_host: Host) -> Iterator[str]:
    from tramontane_frontend_http import make_app

    with listening(make_app(web_host)) as url:
        yield url


class Visit:
    """A page in a browser profile of its own, and what it asked for and complained of."""

    def __init__(self, browser: Any, url: str, *, width: int = 1280, height: int = 820, **options: Any) -> None:
        self.url = url
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, permissions=["clipboard-read", "clipboard-write"], **options
        )
        self.context.set_default_timeout(30_000)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def open(self, model: str | None = None) -> Visit:
        self.page.goto(self.url)
        self.page.wait_for_selector("html[data-ready]")
        if model is not None:
            self.page.select_option("#model", model)
        return self

    def ask(self, text: str) -> None:
        """Send a question and wait for the whole answer."""
        self.page.fill("#prompt", text)
        self.page.press("#prompt", "Enter")
        self.answered()

    def answered(self) -> None:
        self.page.wait_for_selector('#send[data-state="Send"]')

    def keep_picture(self, name: str) -> Path:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(250)  # what slides or fades has arrived
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")
        return SCREENSHOTS / f"{name}.png"


@pytest.fixture
def visit(chromium: Any, page_url: str) -> Iterator[Callable[..., Visit]]:
    """Opens pages; each test has its own storage."""
    made: list[Visit] = []

    def begin(url: str = page_url, **options: Any) -> Visit:
        made.append(Visit(chromium, url, **options))
        return made[-1]

    yield begin
    for one in made:
        one.context.close()
