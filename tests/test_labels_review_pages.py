"""Two people at one review: what one did since the other looked is not overwritten."""

from __future__ import annotations

import pytest

from tests.chromium import wait_for
from tests.review_browser import ENTER, ESCAPE

DEAF = """
const ask = fetch;
window.fetch = (path, set) => path === "/api/changes" ? new Promise(() => {}) : ask(path, set);
"""


def test_two_pages_do_not_overwrite_each_other(review):
    """The second page hears nothing of the first, as when both act in the same moment."""
    browser, first = review.browser, review.browser.current_window_handle
    browser.switch_to.new_window("tab")
    second = browser.current_window_handle
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": DEAF})
    review.open()
    assert review.text("#page-name").startswith("page 2 (")
    try:
        browser.switch_to.window(first)
        review.type("r")
        review.one("#new-name").send_keys("named first", ENTER)
        assert review.decided(1)
        browser.switch_to.window(second)
        assert review.current != "named first"
        review.type("r")
        review.one("#new-name").send_keys("named second", ENTER)
        assert review.shows("#toasts", "Not done: somebody has decided meanwhile. page 1")
        assert review.shows("#toasts", "to “named first”")
        assert review.shows(".row.current", "named first")
        review.one("#new-name").send_keys(ESCAPE)
        assert review.shows("#detail h1", "named first")
        assert review.decided(1)
    finally:
        browser.switch_to.window(second)
        browser.close()
        browser.switch_to.window(first)
    assert "named first" in review.names()


def test_a_name_begun_before_anothers_is_refused_and_stays_typed(review):
    """The first page hears of the other's name while one is typed there: it was not seen."""
    review.type("r")
    review.one("#new-name").send_keys("typed first")
    with review.another_page():
        review.type("r")
        review.one("#new-name").send_keys("of the other page", ENTER)
        assert review.decided(1)
    assert review.shows(".row.current", "of the other page")  # it has heard of it
    review.one("#new-name").send_keys(ENTER)
    assert review.shows("#toasts", "page 2")
    assert review.shows("#toasts", "to “of the other page”")
    assert review.decided(1)
    assert "of the other page" in review.names()
    assert wait_for(lambda: review.all("#new-name"))
    assert review.one("#new-name").get_property("value") == "typed first"
    review.type(ENTER)  # now knowingly
    assert review.decided(2)
    assert "typed first" in review.names()


def rename_elsewhere(review, id: int, name: str) -> None:
    """As another page does; the page of the browser hears of it."""
    seen = [[id, review.desk.review.groups[id].version]]
    review.desk.decide({"action": "rename", "seen": seen, "label": name}, "page 9")
    assert review.shows("#rows", name)


@pytest.mark.parametrize("is_current", [True, False])
def test_what_is_merged_is_what_the_dialog_showed(review, is_current):
    current = int(review.one(".row.current").get_attribute("data-id"))
    review.type("m")
    other = int(review.one(".offered li").get_attribute("data-id"))
    rename_elsewhere(review, current if is_current else other, "of the other page")
    review.type(ENTER)
    assert review.shows("#toasts", "page 9")
    assert review.decided(1)
    assert len(review.names()) == 12
    assert review.all(".offered li")  # it is still open, and shows what has become of them
    assert review.shows(".merge", "of the other page")
    review.type(ENTER)
    assert review.decided(2)
    assert len(review.names()) == 11


def test_what_is_split_is_what_the_dialog_showed(review):
    current = int(review.one(".row.current").get_attribute("data-id"))
    review.type("s")
    review.one(".parts .new input").send_keys(" a half")
    rename_elsewhere(review, current, "of the other page")
    review.click("Split", "dialog footer")
    assert review.shows("#toasts", "page 9")
    assert review.decided(1)
    assert review.shows(".parts .rest", "of the other page")
    assert review.one(".parts .new input").get_property("value").endswith(" a half")
    review.click("Split", "dialog footer")
    assert review.decided(2)
    assert any(name.endswith(" a half") for name in review.names())


def test_several_are_merged_as_the_dialog_showed_them(review):
    ids = [int(row.get_attribute("data-id")) for row in review.all(".row")[:2]]
    review.type("x", "x", "m")
    assert wait_for(lambda: review.all(".choice"))
    rename_elsewhere(review, ids[0], "of the other page")
    review.type(ENTER)
    assert review.shows("#toasts", "page 9")
    assert review.decided(1)
    assert review.shows(".choice", "of the other page")
    review.type(ENTER)
    assert review.decided(2)


def test_a_cluster_that_is_gone_while_its_name_is_typed(review):
    """What was typed is told; another cluster is looked at."""
    current = int(review.one(".row.current").get_attribute("data-id"))
    review.type("r")
    review.one("#new-name").send_keys("typed in vain")
    seen = [[id, 0] for id in (next(i for i in (0, 1) if i != current), current)]
    review.desk.decide({"action": "merge", "seen": seen}, "page 9")
    assert wait_for(lambda: not review.all(f"#row-{current}"))
    review.one("#new-name").send_keys(ENTER)
    assert review.shows("#toasts", "typed in vain")
    assert review.decided(1)
    assert wait_for(lambda: review.current and review.current == review.text("#detail h1"))


def test_pages_show_each_others_decisions(review):
    with review.another_page():
        review.type("r")
        review.one("#new-name").send_keys("from page 2", ENTER)
        assert review.decided(1)
    assert review.shows(".row.current", "from page 2")
    assert review.shows("#detail h1", "from page 2")
