"""The review's page in a real browser, by clicking and typing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from labels.journal import read_journal
from labels.review import JOURNAL
from tests.chromium import type_keys, wait_for
from tests.hostile import MARK, PAYLOADS
from tests.review_browser import DOWN, ENTER, ESCAPE, SHIFT_ENTER, Review
from tests.review_folder import write_folder


def test_keys_alone_do(review):
    first, second, third = (element.text for element in review.all(".row .name")[:3])
    assert review.current == first
    review.type(ENTER)
    assert review.decided(1)
    assert wait_for(lambda: review.current == second)
    review.type("d")
    assert review.decided(2)
    assert wait_for(lambda: review.current == third)
    review.type("n")
    assert review.decided(3)
    names = review.names()
    assert (names[first], names[second], names[third]) == ("kept", "dropped", "noise")
    assert review.shows("#progress-text", "3 of 12 clusters")
    review.type("u", "u")
    assert review.decided(5)
    assert wait_for(lambda: review.names()[second] == "open")
    review.type("U")
    assert review.decided(6)
    assert review.names()[second] == "dropped"


def test_renaming(review):
    before = review.current
    review.type("r")
    review.one("#new-name").send_keys("refund wanted", ENTER)
    assert review.decided(1)
    assert review.shows("#detail h1", "refund wanted")
    assert review.shows(".row.current", "refund wanted")
    review.type("r")
    review.one("#new-name").send_keys("changed my mind", ESCAPE)
    assert review.shows("#detail h1", "refund wanted")
    review.type("r")
    review.one("#new-name").send_keys("refund", SHIFT_ENTER)
    assert review.decided(3)
    assert review.names()["refund"] == "kept"
    assert before not in review.names()


def test_a_name_that_is_taken_is_told(review):
    other = review.all(".row .name")[1].text
    review.type("r")
    review.one("#new-name").send_keys(other, ENTER)
    assert review.shows("#toasts", "another cluster is called")
    assert review.decided(0)


def test_merging_by_keys(review):
    into = review.current
    review.type("m")
    assert wait_for(lambda: review.all(".offered li"))
    other = review.all(".offered .name")[1].text
    review.type(DOWN, ENTER)
    assert review.decided(1)
    assert wait_for(lambda: not review.all("dialog"))
    assert into in review.names()
    assert other not in review.names()
    assert review.shows("#toasts", f"Merged “{other}” into “{into}”")
    review.click("Undo", ".toast")
    assert review.decided(2)
    assert other in review.names()


def test_merging_keeps_the_others_name_with_shift(review):
    mine = review.current
    review.type("m")
    other = review.one(".offered .name").text
    review.type(SHIFT_ENTER)
    assert review.decided(1)
    assert other in review.names()
    assert mine not in review.names()


def test_merging_after_a_comparison(review):
    into = review.current
    review.type("1")
    assert wait_for(lambda: len(review.all(".pair .side ol li")) > 4)
    other = review.all(".pair .side h3")[1].text
    review.type("m")
    assert review.decided(1)
    assert other not in review.names()
    assert review.current == into


def test_several_at_once(review):
    chosen = [element.text for element in review.all(".row .name")[:3]]
    review.type("x", "x", "x")
    assert review.shows("#chosen", "3 chosen")
    review.type("m", ENTER)
    assert review.decided(1)
    assert len(set(chosen) & review.names().keys()) == 1
    assert len(review.names()) == 10
    review.type("x", "x", "d")
    assert review.decided(2)
    assert list(review.names().values()).count("dropped") == 2


def test_splitting_in_parts_and_by_letters(review):
    review.type("s")
    assert wait_for(lambda: review.all(".parts .new"))
    review.one(".parts .new input").send_keys(" a half")
    review.click("Split", "dialog footer")
    assert review.decided(1)
    assert any(name.endswith("a half") for name in review.names())
    assert wait_for(lambda: not review.all("dialog"))
    review.type("f", "please")
    assert wait_for(lambda: review.all(".texts mark"))
    review.click("Split these off", ".within")
    assert wait_for(lambda: review.all(".parts .new"))
    review.click("Split", "dialog footer")
    assert review.decided(2)
    assert len(review.names()) == 14
    assert sum(len(g.points) for g in review.desk.review.groups.values()) == len(
        review.desk.data.keys
    )


def test_splitting_the_marked_off(review):
    for place in (0, 1):
        review.all(".texts input[type=checkbox]")[place].click()
    review.click("Split 2 marked off", ".within")
    assert wait_for(lambda: review.all(".parts .new"))
    review.click("Split", "dialog footer")
    assert review.decided(1)
    assert len(review.names()) == 13


def test_by_mouse(review):
    review.all(".row .name")[2].click()
    name = review.current
    assert review.shows("#detail h1", name)
    review.click("Drop", ".actions")
    assert review.decided(1)
    assert review.names()[name] == "dropped"
    review.click("Dropped", "#statuses")
    assert wait_for(lambda: review.current == name)
    review.click("Reopen", ".actions")
    assert review.decided(2)
    assert review.names()[name] == "open"


def test_searching(review):
    name = review.all(".row .name")[3].text
    review.type("/", name)
    assert wait_for(lambda: [e.text for e in review.all(".row .name")] == [name])
    assert review.current == name
    review.type(ENTER, ENTER)
    assert review.decided(1)
    assert review.names()[name] == "kept"


def test_noise_can_be_looked_at_and_split(review):
    review.click("Noise", "#statuses")
    assert review.shows("#detail h1", "Noise")
    review.type("s")
    review.one("dialog .setting input").send_keys("please")
    assert wait_for(lambda: review.all(".parts .new"))
    review.click("Split", "dialog footer")
    assert review.decided(1)
    assert len(review.names()) == 13


def test_finishing(review):
    review.click("Finish", "#tools")
    assert review.shows("dialog", "12 clusters not looked at yet")
    review.click("Finish", "dialog footer")
    assert review.shows("#banner", "The review is finished")
    assert review.server.is_finished


def test_history_undoes_any_decision_that_stands(review):
    first = review.current
    review.type(ENTER)
    assert review.decided(1)
    wait_for(lambda: review.current != first)
    review.type("d")
    assert review.decided(2)
    review.type("h")
    assert wait_for(lambda: len(review.all(".history li")) == 2)
    review.all(".history li")[1].find_elements("css selector", "button")[-1].click()
    assert review.decided(3)
    assert review.names()[first] == "open"
    review.type(ESCAPE)


def test_a_button_that_was_clicked_does_not_take_enter(review):
    """Enter keeps, whatever was pressed by mouse before."""
    review.one("#statuses [data-status=all]").click()
    review.type("j")
    name = review.current
    review.type(ENTER)
    assert review.decided(1)
    assert review.names()[name] == "kept"


def test_escape_empties_the_search(review):
    name = review.all(".row .name")[2].text
    review.type("/", name)
    assert wait_for(lambda: len(review.all(".row")) == 1)
    review.type(ENTER, ESCAPE)
    assert wait_for(lambda: len(review.all(".row")) == 12)
    assert review.current == name


def test_typing_where_the_list_alone_is_shown(review):
    """On a narrow page the cluster comes in sight first."""
    before = review.current
    narrow = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    review.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    try:
        assert wait_for(lambda: not review.one("#detail").is_displayed())
        review.type("r")
        assert wait_for(lambda: review.all("#new-name"))
        review.type("mine", ENTER)
        assert review.decided(1)
        assert "mine" in review.names()
        assert before not in review.names()
    finally:
        review.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_finishing_by_keys(review):
    review.type("F")
    assert review.shows("dialog", "12 clusters not looked at yet")
    review.type(ENTER)
    assert review.shows("#banner", "The review is finished")
    assert review.server.is_finished


def test_keys_go_to_the_cluster_that_is_seen(review):
    """What is opened right after a decision is of the cluster that stands in its place."""
    _, second = (element.text for element in review.all(".row .name")[:2])
    review.browser.execute_script(
        "for (const key of ['Enter', 'r']) "
        "document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }))"
    )
    assert review.one("#new-name").get_property("value") == second
    review.type("second", ENTER)
    assert review.decided(2)
    assert "second" in review.names()
    assert second not in review.names()


def test_an_address_opens_once_and_a_reload_stays(review):
    review.browser.refresh()
    assert wait_for(lambda: review.all(".texts li"))
    assert "#" not in review.browser.current_url
    first = review.browser.current_window_handle
    review.browser.switch_to.new_window("tab")
    review.browser.get(f"http://127.0.0.1:{review.server.server_address[1]}/#wrong")
    assert review.shows("#banner", "whole address")
    assert not review.all(".row")
    review.browser.close()
    review.browser.switch_to.window(first)


def test_hostile_texts_and_names_run_nothing(tmp_path, browser):
    hostile = [payload.format(run=MARK, url="http://127.0.0.1:9") for payload in PAYLOADS]
    folder = write_folder(
        tmp_path / "tickets",
        texts=dict(enumerate(hostile * 12)),
        labels=dict(enumerate(hostile[:12])),
    )
    review = Review(folder, browser)
    review.click("All", "#statuses")
    for key in ("1", ESCAPE, "m", ESCAPE, "s", ESCAPE, "j", "e", "h", ESCAPE, "r", ENTER, "x", "x"):
        review.type(key)
        wait_for(lambda: False, 0.1)
    review.type("f", "e")
    assert wait_for(lambda: review.all("mark"))
    assert review.browser.execute_script("return document.documentElement.dataset.ran") is None
    assert not review.all("main script, main iframe, main img, main svg, main style, dialog script")
    assert "<script>" in review.text("main")
    assert review.log() == []
    review.close()


def test_a_killed_server_loses_nothing(tmp_path, browser):
    folder = write_folder(tmp_path / "tickets")
    argv = [sys.executable, "-m", "labels.review", str(folder)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    for turn in range(2):
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        told = ""
        while "review: " not in told:
            told += (line := process.stdout.readline())
            assert line, told
        assert ("1 decisions made before" in told) == (turn == 1)
        address = re.search(r"http://\S+", told)
        assert address is not None
        browser.get("about:blank")
        browser.get(address[0])
        seen = wait_for(
            lambda: browser.execute_script("return document.querySelectorAll('.texts li').length")
        )
        assert seen
        text = browser.execute_script("return document.querySelector('#progress-text').textContent")
        assert text.startswith(f"{turn} of 12 clusters")
        type_keys(browser, ENTER)
        assert wait_for(lambda: len(read_journal(folder / JOURNAL)) == turn + 1)  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    type_keys(browser, "d")
    banner = "return document.querySelector('#banner').textContent"
    assert wait_for(lambda: "does not answer" in browser.execute_script(banner))
    assert len(read_journal(folder / JOURNAL)) == 2
    browser.get("about:blank")
    browser.get_log("browser")


PRESS = """
const [key, done] = arguments, began = performance.now();
const before = document.querySelector('.row.current .name').textContent;
const look = () => document.querySelector('.row.current .name').textContent !== before
  && document.querySelector('#detail h1').textContent.length
  && document.querySelectorAll('.texts li').length
  ? done(performance.now() - began) : requestAnimationFrame(look);
document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
look();
"""


@pytest.mark.slow
def test_two_thousand_clusters_are_quick(tmp_path, browser, capsys):
    """First paint under 2 s, an action under 200 ms, on a quiet machine: what is asserted is the
    quickest of ten, and that a busy one is not hopeless.
    """
    review = Review(write_folder(tmp_path / "many", 2_000, 20), browser)
    paint = browser.execute_script(
        "return [performance.getEntriesByName('first-contentful-paint')[0].startTime, "
        "performance.getEntriesByName('ready')[0].startTime]"
    )
    times = {key: [] for key in ("Enter", "d", "n", "j")}
    for _ in range(10):
        for key, took in times.items():
            took.append(browser.execute_async_script(PRESS, key))
    medians = {key: sorted(took)[5] for key, took in times.items()}
    with capsys.disabled():
        print(f"\nfirst paint {paint[0]:.0f} ms, list {paint[1]:.0f} ms, actions {medians} ms")
    assert paint[1] < 30_000
    assert max(map(min, times.values())) < 400
    review.close()
