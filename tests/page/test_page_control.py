"""The live page in a real browser: what it changes, and a daemon that comes and goes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.page.conftest import OpenPage, card
from tests.support.daemon import ROOT, daemon
from tests.support.ports import free_port

pytestmark = pytest.mark.integration


@pytest.fixture
def one(tmp_path: Path) -> Path:
    file = tmp_path / "one.yaml"
    file.write_text(
        "pipelines: {orders: {class: 'tests.page.pipelines:Orders', processors: {concurrency: 2}}}\n", encoding="utf-8"
    )
    return file


def test_a_pipeline_is_paused_by_keyboard_alone(open_page: OpenPage, one: Path, tmp_path: Path) -> None:
    with daemon(tmp_path, one) as running:
        page = open_page(running.url)
        card(page).get_by_role("button", name="Pause").focus()
        page.keyboard.press("Enter")
        expect(card(page).locator(".badge").first).to_have_text("paused")
        expect(card(page).get_by_role("status")).to_have_text("Paused.")
        expect(card(page).get_by_role("button", name="Resume")).to_be_focused()


# --- a daemon that comes and goes


def test_a_restart_of_the_daemon_is_told_and_overcome(open_page: OpenPage, one: Path, tmp_path: Path) -> None:
    port = f"http.port={free_port()}"
    with daemon(tmp_path, one, options=["--set", port]) as running:
        page = open_page(running.url)
        expect(page.get_by_role("status").first).to_have_text("1 pipeline, all ready")
        running.terminated()
        expect(page.get_by_role("status").first).to_have_text(
            re.compile(r"^No answer from the daemon since .*\d:\d\d:\d\d.*\. Trying again each second\.$")
        )
        expect(page).to_have_title("no answer · Broadway")
        first = page.get_by_role("row", name=re.compile("^0 running")).inner_text()
    with daemon(tmp_path, one, options=["--set", port]) as again:
        again.until_ready()
        expect(page.get_by_role("status").first).to_have_text("1 pipeline, all ready")
        expect(page.get_by_role("row", name=re.compile("^0 running"))).to_contain_text(str(again.process.pid))
        assert str(again.process.pid) not in first


def test_a_reload_of_the_settings_changes_what_is_shown(open_page: OpenPage, one: Path, tmp_path: Path) -> None:
    with daemon(tmp_path, one) as running:
        page = open_page(running.url)
        expect(card(page).locator(".cell")).to_have_count(2)
        card(page).get_by_text("Settings of this pipeline").click()
        expect(card(page).get_by_role("row", name="processors.concurrency 2")).to_be_visible()
        one.write_text(
            "pipelines:\n"
            "  orders: {class: 'tests.page.pipelines:Orders', processors: {concurrency: 3}}\n"
            "  refunds: {class: 'tests.page.pipelines:Orders', processors: {concurrency: 1}}\n",
            encoding="utf-8",
        )
        running.signal(signal.SIGHUP)
        expect(page.locator("section.pipeline h2")).to_have_text(["orders", "refunds"])
        expect(card(page).locator(".cell")).to_have_count(3)
        expect(card(page).get_by_role("row", name="processors.concurrency 3")).to_be_visible()
        expect(page.get_by_role("status").first).to_have_text("2 pipelines, all ready")


# --- control


def test_a_rate_limit_and_the_number_of_processors_are_changed(open_page: OpenPage, one: Path, tmp_path: Path) -> None:
    limit = "pipelines.orders.rate_limit={allowed_messages: 500, interval: 1s}"
    with daemon(tmp_path, one, options=["--set", limit]) as running:
        page = open_page(running.url)
        card(page).get_by_text("Change …").click()
        form = card(page).get_by_role("group", name="Rate limit")
        form.get_by_label("messages").fill("7")
        form.get_by_role("button", name="Apply").click()
        expect(card(page).get_by_role("status")).to_have_text("The rate limit is changed.")
        expect(form.locator("small")).to_have_text("Now: 7 in 1 s.")
        form = card(page).get_by_role("group", name="Processors")
        form.get_by_label("number").fill("5")
        form.get_by_role("button", name="Apply").click()
        expect(card(page).get_by_role("status")).to_have_text("The number of processors is changed.")
        expect(card(page).locator(".cell")).to_have_count(5)


def test_control_asks_for_the_token_once_and_a_wrong_one_is_refused(
    open_page: OpenPage, one: Path, tmp_path: Path
) -> None:
    token = "a-token-of-the-tests-0123456789"
    (tmp_path / "token").write_text(token, encoding="utf-8")
    (tmp_path / "token").chmod(0o600)
    with daemon(tmp_path, one, options=["--set", "http.token_file=token"]) as running:
        page = open_page(running.url)
        shown, dialog = card(page), page.get_by_role("dialog", name="Token")
        shown.get_by_role("button", name="Pause").click()
        expect(dialog).to_contain_text("Control needs the token of the daemon.")
        dialog.get_by_role("button", name="Cancel").click()
        expect(dialog).to_be_hidden()
        expect(shown.locator(".badge").first).to_have_text("running")

        shown.get_by_role("button", name="Pause").click()
        dialog.get_by_label("Token of the daemon").fill("wrong")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("this is not the token of the daemon")
        assert running.get("/readyz")[0] == 200

        dialog.get_by_label("Token of the daemon").fill(token)
        dialog.get_by_role("button", name="Use this token").click()
        expect(shown.locator(".badge").first).to_have_text("paused")
        shown.get_by_role("button", name="Resume").click()
        expect(shown.locator(".badge").first).to_have_text("running")
        expect(dialog).to_be_hidden()
        assert token not in page.url + page.content()
        assert page.evaluate("localStorage.length") == 0


def test_control_that_is_refused_is_disabled_and_says_why(open_page: OpenPage, one: Path, tmp_path: Path) -> None:
    with daemon(tmp_path, one, options=["--set", "http.host=0.0.0.0"]) as running:
        page = open_page(running.url.replace("0.0.0.0", "127.0.0.1"))  # what is tested
        expect(card(page).locator(".refusal")).to_have_text(
            "control is refused, because other machines can reach this port and there is no token; set "
            "http.token_file to a file that holds one"
        )
        expect(card(page).get_by_role("button", name="Pause")).to_be_disabled()
        card(page).get_by_text("Change …").click()
        for button in card(page).get_by_role("button", name="Apply").all():
            expect(button).to_be_disabled()


def test_dead_letters_are_put_back(open_page: OpenPage, tmp_path: Path) -> None:
    # Not with SyncQueue: the driver of the browser runs an event loop in this thread.
    send = [sys.executable, "-m", "broadway_py", "send", "--queue", f"{tmp_path / 'stock.db'}:stock"]
    subprocess.run(send, input=b"1\n2\n", cwd=ROOT, capture_output=True, check=True)
    file = tmp_path / "failing.yaml"
    file.write_text(
        """
pipelines:
  orders:
    class: tests.page.pipelines:WithoutSink
    producer: {kind: queue, path: stock.db, queue: stock}
    failure: {attempts: 1, breaker: null}
""",
        encoding="utf-8",
    )
    with daemon(tmp_path, file) as running:
        page = open_page(running.url)
        expect(card(page).locator(".outcomes")).to_contain_text("dead lettered 2")
        card(page).get_by_text("Change …").click()
        form = card(page).get_by_role("group", name="Put dead letters back")
        form.get_by_label("at most").fill("1")
        form.get_by_role("button", name="Apply").click()
        expect(card(page).get_by_role("status")).to_have_text("1 dead letter was put back.")
        # It fails again.
        expect(card(page).locator(".outcomes")).to_contain_text("dead lettered 3")


def test_each_worker_is_shown_with_the_load_of_its_processors(open_page: OpenPage, one: Path, tmp_path: Path) -> None:
    with daemon(tmp_path, one, options=["--workers", "2"]) as running:
        running.until_ready()
        page = open_page(running.url)
        workers = page.get_by_role("region", name="Workers").first
        for index, pid in running.workers().items():
            expect(workers.get_by_role("row", name=re.compile(f"^{index} running {pid}"))).to_be_visible()
            expect(card(page).get_by_role("img", name=f"worker {index}: 2 processors busy")).to_be_visible()
        card(page).get_by_text("Change …").click()
        form = card(page).get_by_role("group", name="Processors")
        form.get_by_label("in each worker").fill("3")
        form.get_by_role("button", name="Apply").click()
        expect(form.locator("small")).to_have_text("Now: 6 in all workers.")
