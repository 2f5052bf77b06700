"""The live page in a real browser, on a real daemon with twenty pipelines in all states."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import pytest
from playwright.sync_api import expect

from broadway_py.queue import SyncQueue
from tests.page.conftest import OpenPage, after_updates, card
from tests.support.daemon import Daemon, daemon

pytestmark = pytest.mark.integration

TROUBLED: Final = ("sinkless", "sourceless")
#: Would be an element, and a program, if it were not shown as text.
NASTY: Final = '<img src=x onerror="document.title=1"> & </script>'

SETTINGS: Final = """
pipelines:
  orders:
    class: tests.page.pipelines:Orders
    processors: {{concurrency: 64}}
    rate_limit: {{allowed_messages: 500, interval: 1s}}
  sinkless: {{class: tests.page.pipelines:WithoutSink, processors: {{concurrency: 2}}}}
  sourceless: {{class: tests.page.pipelines:WithoutSource, processors: {{concurrency: 2}}}}
  stock:
    class: tests.page.pipelines:Orders
    producer: {{kind: queue, path: stock.db, queue: stock}}
    processors: {{concurrency: 2}}
    rate_limit: {{allowed_messages: 1, interval: 1h}}
  nasty: {{class: tests.page.pipelines:Orders, name: '{nasty}', processors: {{concurrency: 2}}}}
{others}
"""


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("twenty")
    with SyncQueue(folder / "stock.db", "stock") as queue:
        queue.put_many([b"1"] * 40)
    others = "\n".join(
        f"  other-{number:02}: {{class: tests.page.pipelines:Orders, processors: {{concurrency: 1}}}}"
        for number in range(15)
    )
    file = folder / "twenty.yaml"
    file.write_text(SETTINGS.format(others=others, nasty=NASTY), encoding="utf-8")
    with daemon(folder, file) as running:
        running.until_logged("the breaker opened: too many messages fail; fetching stops until a probe succeeds")
        yield running


def chosen(running: Daemon, name: str) -> str:
    """The address of the page that shows one pipeline in full."""
    return f"{running.url}/#pipeline={name}"


# --- looks

LOOKS: Final[dict[str, dict[str, Any]]] = {
    "wide": {"viewport": {"width": 1600, "height": 1000}},
    "phone": {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True},
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_and_follows_the_theme(twenty: Daemon, open_page: OpenPage, look: str, scheme: str) -> None:
    page = open_page(chosen(twenty, "orders"), color_scheme=scheme, **LOOKS[look])
    card(page).get_by_text("Settings of this pipeline").click()
    card(page).get_by_text("Change …").click()
    expect(page.get_by_text("failure.breaker.ratio")).to_be_visible()
    widths = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert widths[0] <= widths[1]
    luminance = page.evaluate(
        "['backgroundColor', 'color'].map((name) => getComputedStyle(document.body)[name].match(/\\d+/g).map(Number)"
        ".reduce((a, b) => a + b))"
    )
    assert (luminance[0] > luminance[1]) is (scheme == "light")


def test_less_motion_is_respected(twenty: Daemon, open_page: OpenPage) -> None:
    page = open_page(chosen(twenty, "orders"), reduced_motion="reduce")
    durations = "(all) => [...new Set(all.map((one) => getComputedStyle(one).transitionDuration))]"
    assert card(page).locator(".cell i, .bar i").evaluate_all(durations) == ["0s"]


# --- cases


def test_twenty_pipelines_are_a_table_with_a_filter(twenty: Daemon, open_page: OpenPage) -> None:
    page = open_page(twenty.url)
    rows = page.get_by_role("region", name="Pipelines").locator("tbody tr")
    expect(rows).to_have_count(20)
    expect(page.get_by_role("status").first).to_have_text("2 of 20 not ready")
    page.get_by_role("searchbox", name="Find").fill("other-1")
    expect(rows).to_have_count(5)
    page.get_by_role("searchbox", name="Find").fill("degraded")
    expect(rows).to_have_count(1)
    page.get_by_role("searchbox", name="Find").fill("")
    page.get_by_role("checkbox", name="only with trouble").check()
    expect(rows.get_by_role("link")).to_have_text(list(TROUBLED))
    after_updates(page)
    expect(rows.get_by_role("link")).to_have_text(list(TROUBLED))


def test_the_chosen_pipeline_is_shown_in_full_and_is_in_the_address(twenty: Daemon, open_page: OpenPage) -> None:
    page = open_page(twenty.url)
    page.get_by_role("link", name="other-07").click()
    expect(page.locator("section.pipeline h2")).to_have_text(["other-07"])
    page.reload()
    expect(page.locator("section.pipeline h2")).to_have_text(["other-07"])
    expect(page.get_by_role("link", name="other-07")).to_have_attribute("aria-current", "true")


def test_each_of_64_processors_has_its_load(twenty: Daemon, open_page: OpenPage) -> None:
    page = open_page(chosen(twenty, "orders"))
    expect(card(page).locator(".cell")).to_have_count(64)
    load = card(page).get_by_role("img", name="64 processors")
    expect(load).to_have_attribute(
        "aria-label", re.compile(r"^64 processors: 64 processors busy, \d+ % on average, at most \d+ %, number \d+$")
    )


def test_a_source_that_is_away_says_why(twenty: Daemon, open_page: OpenPage) -> None:
    page = open_page(chosen(twenty, "sourceless"))
    shown = card(page, "sourceless")
    expect(shown.locator(".badge").first).to_have_text("not ready")
    expect(shown.locator(".troubles li")).to_have_text(["away: amqp://broker.example/ refused the connection"])
    expect(shown.locator(".stage.bad .note")).to_have_text("amqp://broker.example/ refused the connection")


def test_an_open_breaker_says_why_it_opened_and_when_it_tries_again(twenty: Daemon, open_page: OpenPage) -> None:
    page = open_page(chosen(twenty, "sinkless"))
    shown = card(page, "sinkless")
    expect(shown.locator(".badge").first).to_have_text("degraded")
    expect(shown.locator(".troubles li")).to_have_text(
        re.compile(
            r"^The breaker is open\. It opened because messages failed: \d+ of \d+, the last by ConnectionError in "
            r"processors, at .*pipelines\.py:\d+ handle_message\. The next try is (now|in \d+ s)\.$"
        )
    )
    failures = shown.get_by_role("region", name="Last failures of sinkless")
    expect(failures.locator("tbody th")).to_have_text("ConnectionError raised")
    expect(failures.locator("tbody td").last).to_have_text("rejected")
    assert "the sink is away" not in page.content()


def test_the_depth_of_a_source_is_shown(twenty: Daemon, open_page: OpenPage) -> None:
    page = open_page(chosen(twenty, "stock"))
    waiting = card(page, "stock").locator(".numbers div", has_text="waiting")
    expect(waiting.locator("dd")).to_have_text(re.compile(r"^\d+$"))
    expect(card(page, "stock").get_by_role("slider", name="Waiting")).to_be_visible()


def test_names_are_text_and_never_elements(twenty: Daemon, open_page: OpenPage) -> None:
    page = open_page(twenty.url)
    page.get_by_role("link", name=NASTY).click()
    expect(page.locator("section.pipeline h2")).to_have_text(NASTY)
    assert page.locator("main img").count() == 0
    expect(page).to_have_title("not ready · Broadway")


def test_the_history_is_read_with_the_keyboard(twenty: Daemon, open_page: OpenPage) -> None:
    page = open_page(chosen(twenty, "orders"))
    chart = card(page).get_by_role("slider", name="Settled")
    # A first rate needs two points, which are five seconds apart.
    page.wait_for_function("() => document.querySelector('.pipeline [role=slider]').ariaValueNow >= 1")
    chart.focus()
    page.keyboard.press("End")
    last = chart.get_attribute("aria-valuetext") or ""
    assert re.fullmatch(r"\d.*: [\d.,]+ msg/s", last)
    page.keyboard.press("ArrowLeft")
    expect(chart).not_to_have_attribute("aria-valuetext", last)
    page.keyboard.press("Escape")
    expect(chart).to_have_attribute("aria-valuetext", re.compile("^now: "))


def test_settings_are_shown_with_their_defaults(twenty: Daemon, open_page: OpenPage) -> None:
    page = open_page(chosen(twenty, "orders"))
    card(page).get_by_text("Settings of this pipeline").click()
    expect(card(page).get_by_role("row", name="processors.concurrency 64")).to_be_visible()
    expect(card(page).get_by_role("row", name="failure.attempts 5")).to_be_visible()


# --- what stays while figures change


def test_a_selection_survives_updates(twenty: Daemon, open_page: OpenPage) -> None:
    page = open_page(chosen(twenty, "orders"))
    after_updates(page)
    # From a text that stays the same to a number that changes all the time.
    page.evaluate("""() => {
        const shown = document.querySelector('.pipeline');
        const number = document.evaluate(".//dd[../dt[.='settled in all']]/text()", shown).iterateNext();
        document.getSelection().setBaseAndExtent(shown.querySelector('h2').firstChild, 2, number, number.data.length);
    }""")
    before = page.evaluate("document.getSelection().toString()")
    number = card(page).locator(".numbers div", has_text="settled in all").locator("dd")
    changed = number.inner_text()
    after_updates(page, 3)
    expect(number).not_to_have_text(changed)
    selected = page.evaluate("document.getSelection().toString()")
    assert before.startswith("ders")
    assert selected.startswith("ders")
    assert selected.rstrip().endswith(number.inner_text()[: len(changed)])


def test_focus_tooltips_open_details_and_typed_text_survive_updates(twenty: Daemon, open_page: OpenPage) -> None:
    page = open_page(chosen(twenty, "orders"))
    card(page).get_by_text("Change …").click()
    card(page).get_by_label("messages").fill("321")
    card(page).get_by_role("button", name="99 % within").focus()
    expect(page.locator("#tip")).to_contain_text("half took at most the first time")
    after_updates(page, 3)
    expect(page.locator("#tip")).to_be_visible()
    expect(card(page).get_by_role("button", name="99 % within")).to_be_focused()
    expect(card(page).get_by_label("messages")).to_have_value("321")
    page.keyboard.press("Escape")
    expect(page.locator("#tip")).to_be_hidden()


# --- the keyboard and screen readers

FOCUS: Final = """() => {
    const one = document.activeElement;
    if (one === document.body) return null;
    one.setAttribute('data-reached', '');
    const style = getComputedStyle(one);
    const isSeen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
    return { tag: one.localName, text: (one.ariaLabel || one.textContent).trim().slice(0, 40), isSeen };
}"""
REACHABLE: Final = "a[href], button:enabled, input:enabled, select:enabled, summary, [tabindex='0']"


def test_everything_is_reached_by_keyboard_with_a_visible_focus(twenty: Daemon, open_page: OpenPage) -> None:
    page = open_page(chosen(twenty, "stock"))
    card(page, "stock").get_by_text("Change …").click()
    page.get_by_role("link", name="Skip to the pipelines").focus()
    reached = []
    while (found := page.evaluate(FOCUS)) is not None:
        reached.append(found)
        page.keyboard.press("Tab")
    assert len(reached) > 60
    # The first one got its focus from this test, and browsers show only the focus that a key has given.
    assert [one for one in reached[1:] if not one["isSeen"]] == []
    missed = page.evaluate(
        f"""() => [...document.querySelectorAll("{REACHABLE}")]
        .filter((one) => one.checkVisibility() && !one.closest('fieldset:disabled'))
        .filter((one) => !one.hasAttribute('data-reached'))
        .map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert missed == []


NAMELESS: Final = (
    "button",
    "link",
    "textbox",
    "searchbox",
    "spinbutton",
    "checkbox",
    "combobox",
    "slider",
    "img",
    "region",
)


def test_everything_has_a_name_and_a_place_for_screen_readers(twenty: Daemon, open_page: OpenPage) -> None:
    page = open_page(chosen(twenty, "orders"))
    card(page).get_by_text("Change …").click()
    session = page.context.new_cdp_session(page)
    nodes = [node for node in session.send("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    roles: dict[str, list[Any]] = {}
    for node in nodes:
        roles.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    assert {role: names for role, names in roles.items() if role in NAMELESS and not all(names)} == {}
    assert {"banner", "main", "navigation", "contentinfo", "search"} <= set(roles)
    assert "columnheader" in roles
    assert "rowheader" in roles
    levels = page.locator("h1, h2, h3").evaluate_all(
        "(all) => all.filter((one) => one.checkVisibility()).map((one) => +one.tagName[1])"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    described = card(page).get_by_role("button", name="99 % within")
    expect(described).to_have_accessible_description(
        re.compile("^Of the messages that were settled in the last seconds")
    )
