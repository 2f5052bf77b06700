"""One browser for all tests of a file, and what the page may never do in any of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

#: Milliseconds until a wait of the browser fails.
PATIENCE: Final = 20_000

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium without a window. It ends with the file: its driver runs an event loop in this thread."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no Chromium on this machine; make test installs it where that is allowed")
    with sync_playwright() as driver:
        # Chromium refuses to run its sandbox as root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        running = driver.chromium.launch(executable_path=program, args=arguments)
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens the page of a daemon. At the end no page has had an error, or sent a request to another origin."""
    expect.set_options(timeout=PATIENCE)
    opened: list[Any] = []
    errors: list[str] = []
    requests: set[str] = set()
    origins: set[str] = set()

    def open_(url: str, **options: Any) -> Page:
        context = browser.new_context(**options)
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.add(request.url))
        origins.add(url.partition("#")[0].rstrip("/"))
        page.goto(url)
        page.locator("main section").first.wait_for()
        return page

    yield open_
    for context in opened:
        context.close()
    assert errors == []
    elsewhere = {one for one in requests if not any(one.startswith(f"{origin}/") for origin in origins)}
    assert {one for one in elsewhere if not one.startswith("data:")} == set()


def card(page: Page, name: str = "orders") -> Locator:
    """The part of the page that shows one pipeline in full."""
    return page.get_by_role("region", name=name, exact=True)


def after_updates(page: Page, count: int = 2) -> None:
    """Wait until the page has shown newer figures so many times."""
    for _ in range(count):
        before = page.inner_text("#footer")
        page.wait_for_function("before => document.getElementById('footer').textContent !== before", arg=before)
