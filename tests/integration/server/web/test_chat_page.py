# SPDX-License-Identifier: Apache-2.0
"""The chat page in a real browser before a real server. The models are scripted, so that what they say is known.

What every run looks at: an answer streams, is stopped, and can do no harm; everything else belongs to the full run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import listening
from tramontane_scripted.talking import SUNNY, THOUGHT

from tramontane.host import Host

TOOL = '[{"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]'
BRIEF = "It is sunny."
Opens = Callable[..., Any]


def texts(page: Any, selector: str) -> list[str]:
    found: list[str] = page.locator(selector).all_inner_texts()
    return found


def test_an_answer_streams_as_markdown(visit: Opens) -> None:
    one = visit().open("writer")
    page = one.page
    one.ask("How do I merge two lists?")
    assert page.inner_text(".answer h2") == "Two lists"
    assert texts(page, ".answer em, .answer strong") == ["smaller", "head"]
    assert texts(page, ".answer td") == ["empty", "0"]
    assert page.get_attribute(".answer a", "href") == "https://example.com/"
    assert page.get_attribute(".answer a", "rel") == "noopener noreferrer nofollow"
    page.click(".code-head button")
    assert page.evaluate("navigator.clipboard.readText()") == "def merge(a, b):\n    return sorted(a + b)\n"
    figures = page.inner_text(".assistant .figures")
    assert "tokens/s" in figures
    assert "first after" in figures
    assert one.complaints == []
    assert one.keep_picture("desktop").stat().st_size > 10_000


def test_an_answer_is_stopped(visit: Opens, web_host: Host) -> None:
    one = visit().open("endless")
    page = one.page
    page.fill("#prompt", "Go on.")
    page.press("#prompt", "Enter")
    page.locator(".answer > .prose", has_text="word").wait_for()
    assert page.get_attribute("#send", "aria-label") == "Stop"
    page.keyboard.press("Escape")
    one.answered()
    assert "Stopped" in page.inner_text(".assistant .figures")
    said = page.inner_text(".answer > .prose")
    until = time.monotonic() + 10
    while web_host.metrics()["endless"]["running"]:
        assert time.monotonic() < until, "the server goes on"
        page.wait_for_timeout(50)
    assert page.inner_text(".answer > .prose") == said


@pytest.mark.full
def test_editing_and_asking_again_make_branches_that_a_reload_keeps(visit: Opens) -> None:
    one = visit().open("brief")
    page = one.page
    one.ask("How is Rome?")
    page.hover(".turn.user")
    page.click(".turn.user [aria-label='Edit and ask again']")
    page.fill(".edit-text", "How is Oslo?")
    page.press(".edit-text", "Enter")
    one.answered()
    assert texts(page, ".question-text") == ["How is Oslo?"]
    assert texts(page, ".turn.user .place") == ["2/2"]
    page.click(".turn.assistant [aria-label='Another answer']")
    one.answered()
    assert texts(page, ".turn.assistant .place") == ["2/2"]
    page.click(".turn.user [aria-label='Previous version']")
    assert texts(page, ".question-text") == ["How is Rome?"]
    assert texts(page, ".turn.assistant .place") == []
    page.wait_for_timeout(200)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert texts(page, ".question-text") == ["How is Rome?"], "the branch that was shown is shown again"
    assert texts(page, ".answer > .prose") == [BRIEF]
    page.click(".turn.user [aria-label='Next version']")
    assert texts(page, ".turn .place") == ["2/2", "2/2"]
    assert one.complaints == []


@pytest.mark.full
def test_a_thought_is_folded_and_a_tool_is_called_and_answered(visit: Opens) -> None:
    one = visit().open("talker")
    page = one.page
    page.click("#panel-open")
    page.fill("[data-setting=tools]", "[{}]")
    assert "a function with a name" in page.inner_text(".panel .field-error >> visible=true")
    page.fill("[data-setting=tools]", TOOL)
    page.keyboard.press("Escape")
    one.ask("How is Rome?")
    assert page.inner_text(".thought summary").startswith("Thought for ")
    assert page.get_attribute(".thought", "open") is None
    page.click(".thought summary")
    assert page.inner_text(".thought .prose") == THOUGHT
    assert page.inner_text(".call-name") == "get_weather"
    assert json.loads(page.inner_text(".call code")) == {"city": "Rome", "days": 2}
    page.fill(".call textarea", "sunny, 31 degrees")
    one.keep_picture("tool-call")
    page.click("text=Send result")
    one.answered()
    assert page.inner_text(".turn.assistant >> nth=1 >> .prose >> nth=-1") == SUNNY
    assert "sunny, 31 degrees" in page.inner_text(".call")
    assert page.locator(".call textarea").count() == 0
    assert one.complaints == []


def test_what_a_model_says_stays_harmless(visit: Opens, page_url: str) -> None:
    one = visit().open("hostile")
    page = one.page
    one.ask("Hello")
    assert "Still here." in page.inner_text(".answer")
    assert "<script>window.hacked = 1</script>" in page.inner_text(".answer"), "what it wrote is shown as it is"
    assert page.locator(".answer :is(script, iframe, style, form, svg:not(.icon), img, a)").count() == 0
    assert page.evaluate("window.hacked") is None
    assert [url for url in one.requests if not url.startswith(page_url)] == []
    assert one.complaints == []


HOSTILE_HTML = [
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "<img src='data:image/svg+xml;base64,PHN2Zy8+'>",
    "<svg><script>window.hacked=1</script></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.hacked=1>",
    "<a href='java\tscript:window.hacked=1'>x</a>",
    "<a href='data:text/html,<script>window.hacked=1</script>'>x</a>",
    "<a href='//evil.test'>x</a>",
    "<form id=x><input name=attributes></form>",
    "<p id=thread style='position:fixed' class=dialog>x</p>",
    "<base href='https://evil.test/'><meta http-equiv=refresh content='0;url=https://evil.test'>",
    "<details open ontoggle=window.hacked=1>x</details>",
    "<link rel=stylesheet href='https://evil.test/x.css'><object data=x></object><embed src=x>",
    "<video src='https://evil.test/v'></video><audio src=x onerror=window.hacked=1></audio>",
]


@pytest.mark.full
def test_the_sanitizer_alone_lets_nothing_through(visit: Opens, page_url: str) -> None:
    one = visit().open()
    shown = one.page.evaluate(
        """async (pieces) => {
            const { sanitize } = await import("./js/sanitize.js");
            const box = document.createElement("div");
            document.body.append(box);
            for (const piece of pieces) box.append(sanitize(piece));
            await new Promise((done) => setTimeout(done, 200));
            const all = [...box.querySelectorAll("*")];
            return { names: all.map((one) => one.localName),
                     attributes: all.flatMap((one) => [...one.attributes].map((a) => `${a.name}=${a.value}`)) };
        }""",
        HOSTILE_HTML,
    )
    assert set(shown["names"]) <= {"p", "details", "table", "tbody", "tr", "td"}
    assert set(shown["attributes"]) <= {"open="}
    assert one.page.evaluate("window.hacked") is None
    assert [url for url in one.requests if not url.startswith(page_url)] == []


@pytest.mark.full
def test_the_policy_holds_where_the_sanitizer_would_not(visit: Opens, page_url: str) -> None:
    one = visit().open()
    refused = one.page.evaluate(
        """async () => {
            const broken = [];
            document.addEventListener("securitypolicyviolation", (event) => broken.push(event.effectiveDirective));
            const script = document.createElement("script");
            try { script.textContent = "window.hacked = 1"; } catch { broken.push("trusted-types"); }
            try { document.body.innerHTML += "<b>x</b>"; } catch { broken.push("trusted-types"); }
            document.body.append(script);
            const image = new Image();
            image.src = "https://evil.test/x.png";
            document.body.append(image);
            await fetch("https://evil.test/").catch(() => broken.push("fetch"));
            await new Promise((done) => setTimeout(done, 200));
            return broken;
        }"""
    )
    assert {"img-src", "connect-src", "fetch", "trusted-types"} <= set(refused)
    assert one.page.evaluate("window.hacked") is None


@pytest.mark.full
def test_conversations_are_renamed_exported_deleted_and_imported(visit: Opens, tmp_path: Path) -> None:
    one = visit().open("brief")
    page = one.page
    note = tmp_path / "note.txt"
    note.write_text("The wind is cold. Ça ira!")
    page.set_input_files("#attach-file", [str(note)])
    page.wait_for_selector("#attachments li")
    one.ask("Summarize")
    assert page.locator(".turn.user .file").count() == 1

    page.click(".entry [aria-haspopup=menu]")
    page.click("[role=menuitem] >> text=Rename")
    page.fill("#ask-input", "Of the wind")
    page.press("#ask-input", "Enter")
    page.wait_for_selector(".entry-title >> text=Of the wind")
    with page.expect_download() as found:
        page.click("#export-all")
    kept = json.loads(Path(found.value.path()).read_text())
    assert [c["title"] for c in kept] == ["Of the wind"]
    asked = kept[0]["nodes"][kept[0]["roots"][0]]
    assert asked["attachments"] == [{"name": "note.txt", "text": "The wind is cold. Ça ira!"}]
    page.click(".entry [aria-haspopup=menu]")
    with page.expect_download() as found:
        page.click("[role=menuitem] >> text=Export as Markdown")
    assert found.value.suggested_filename == "of-the-wind.md"
    assert f"## brief\n\n{BRIEF}" in Path(found.value.path()).read_text()

    page.click(".entry [aria-haspopup=menu]")
    page.click("[role=menuitem] >> text=Delete")
    page.click("#ask-yes")
    page.wait_for_selector("text=No conversations yet")
    assert page.locator(".welcome").count() == 1
    file = tmp_path / "kept.json"
    file.write_text(json.dumps(kept))
    page.set_input_files("#import-file", str(file))
    page.click(".entry-title >> text=Of the wind")
    page.wait_for_selector(".answer")
    assert texts(page, ".answer > .prose") == [BRIEF]
    file.write_text('[{"id": "x", "roots": ["y"], "nodes": {}, "chosen": {}}]')
    page.set_input_files("#import-file", str(file))
    page.wait_for_selector("text=it holds no conversations of this page")
    assert one.complaints == []


@pytest.mark.full
def test_it_asks_for_the_key_of_a_server_that_wants_one(visit: Opens, web_host: Host) -> None:
    from tramontane_frontend_http import ServerSettings, make_app

    with listening(make_app(web_host, ServerSettings(api_keys=("wind",)))) as url:
        one = visit(url)
        page = one.page
        page.goto(url)
        page.fill("#key", "breeze")
        page.press("#key", "Enter")
        page.wait_for_selector("text=The server refused that key.")
        page.fill("#key", "wind")
        page.press("#key", "Enter")
        page.wait_for_selector("html[data-ready]")
        page.select_option("#model", "brief")
        one.ask("How is Rome?")
        assert texts(page, ".answer > .prose") == [BRIEF]


@pytest.mark.full
def test_on_a_phone_everything_fits_and_the_list_is_a_drawer(visit: Opens) -> None:
    one = visit(width=390, height=844, color_scheme="dark", has_touch=True).open("writer")
    page = one.page
    one.keep_picture("phone-welcome")
    one.ask("How do I merge two lists?")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("document.querySelector('.thread').scrollWidth") <= 390
    one.keep_picture("phone")
    page.click("#sidebar-open")
    page.wait_for_selector(".entry-title >> text=How do I merge")
    one.keep_picture("phone-list")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "sidebar-open"
    assert one.complaints == []


@pytest.mark.full
@pytest.mark.parametrize("theme", ["dark", pytest.param("light", marks=pytest.mark.full)])
def test_a_chosen_theme_stays(visit: Opens, theme: str) -> None:
    one = visit(color_scheme="dark" if theme == "light" else "light").open()
    page = one.page
    while page.evaluate("document.documentElement.dataset.theme") != theme:
        page.click("#theme")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    lightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (lightness > 128) == (theme == "light")
