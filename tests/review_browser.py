"""A review's folder, its server, and its page in a tab of a real browser."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from labels.journal import read_journal
from labels.review import JOURNAL
from labels.review_data import read_review_data
from labels.review_desk import Desk
from labels.review_server import ReviewServer
from labels.review_state import NOISE
from tests.chromium import type_keys, wait_for

ENTER, ESCAPE, DOWN, SHIFT_ENTER = "\ue007", "\ue00c", "\ue015", "\ue008\ue007\ue000"


class Review:
    """A folder, its server, and a page in a tab of the browser."""

    def __init__(self, folder: Path, browser):
        self.folder, self.browser = folder, browser
        self.desk = Desk(read_review_data(folder), folder / JOURNAL)
        self.server = ReviewServer(self.desk, "tickets", 0, lambda address: None)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        browser.get_log("browser")  # of the pages before
        self.open()

    def open(self) -> None:
        self.browser.get("about:blank")
        self.browser.get(self.server.make_address())
        assert wait_for(lambda: self.all(".texts li"))

    @contextlib.contextmanager
    def another_page(self) -> Iterator[None]:
        """A second page, in a tab of its own, while this lasts."""
        first = self.browser.current_window_handle
        self.browser.switch_to.new_window("tab")
        try:
            self.open()
            yield
        finally:
            self.browser.close()
            self.browser.switch_to.window(first)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def all(self, css: str) -> list:
        return self.browser.find_elements("css selector", css)

    def one(self, css: str):
        assert wait_for(lambda: self.all(css)), css
        return self.all(css)[0]

    def text(self, css: str) -> str:
        """What is written in the first such element, seen or not."""
        return self.browser.execute_script(
            "return document.querySelector(arguments[0])?.textContent ?? ''", css
        )

    def click(self, label: str, within: str = "body") -> None:
        def click() -> bool:
            return self.browser.execute_script(
                "const all = [...document.querySelectorAll(arguments[0])].flatMap(e => "
                "[...e.querySelectorAll('button')]);"
                "const found = all.find(e => e.textContent.startsWith(arguments[1]) && !e.disabled "
                "&& e.offsetParent !== null); found?.click(); return Boolean(found)",
                within, label,
            )  # fmt: skip

        assert wait_for(click), label

    def type(self, *keys: str) -> None:
        for key in keys:
            type_keys(self.browser, key)

    def decided(self, number: int) -> bool:
        """Whether so many decisions are made, in the journal and by the desk."""
        made = wait_for(lambda: len(read_journal(self.folder / JOURNAL)) == number)
        with self.desk._lock:  # held from the one until the other
            return made

    def shows(self, css: str, text: str) -> bool:
        return wait_for(lambda: text in self.text(css))

    @property
    def current(self) -> str:
        return self.text(".row.current .name")

    def names(self) -> dict[str, str]:
        groups = self.desk.review.groups.values()
        return {group.name: group.status for group in groups if group.id != NOISE}

    def log(self) -> list[dict]:
        """What went wrong in the page; that an answer is no 200 is none of it."""
        return [e for e in self.browser.get_log("browser") if e["source"] != "network"]
