from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integrations.served import FLAGS, find_chromium


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium."""
    found = find_chromium()
    if found is None:
        pytest.skip("no Chromium on this machine (name one in the environment variable CHROMIUM)")
    return found


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    """A real headless Chromium, driven through playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser; it is in the extra `dev`")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


class Watched:
    """A page of the browser and what must not happen on it: errors on its console, requests to other hosts."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"exception: {error.stack}"))
        page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url} {request.failure}"))
        page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(f"console: {message.text} {message.location}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith(("http://localhost:", "file:", "data:", "blob:")):
            self.complaints.append(f"another host: {request.url}")


@pytest.fixture
def watched(browser: Any) -> Iterator[Watched]:
    """A fresh page of its own; the test fails if anything went wrong on it."""
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    context.set_default_timeout(30_000)
    page = Watched(context.new_page())
    yield page
    context.close()
    assert page.complaints == []
