"""The report in a real browser: nothing of the data runs, loads or leaves the page."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from model.attribution import Attribution
from model.page import build_page
from model.report_words import Explained
from tests.hostile import MARK, PAYLOADS
from tests.test_report import _write

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


@pytest.fixture
def server():
    """(address, the paths that a browser asked for)."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def browse(path: Path, profile: Path) -> str:
    """The document as it stands after a second of the page's own time."""
    assert BROWSER is not None
    argv = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-dev-shm-usage",
            f"--user-data-dir={profile}", "--virtual-time-budget=1000", "--dump-dom",
            path.as_uri()]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert "<html" in done.stdout, done.stderr
    return done.stdout


def test_payloads_do_run_where_nothing_stops_them(tmp_path, server):
    """Else the tests below would say nothing."""
    url, asked = server
    page = tmp_path / "page.html"
    for payload in PAYLOADS[:6]:
        page.write_text(f"<html><body>{payload.format(run=MARK, url=url)}</body></html>")
        if "<script>" in payload:
            assert "data-ran" in browse(page, tmp_path / "profile"), payload
            break
    page.write_text("".join(payload.format(run=MARK, url=url) for payload in PAYLOADS[3:6]))
    assert "data-ran" in browse(page, tmp_path / "profile")
    assert asked


def test_the_policy_stops_what_escaping_would_let_through(tmp_path, server):
    url, asked = server
    harmful = [p.format(run=MARK, url=url) for p in PAYLOADS if "refresh" not in p]
    page = tmp_path / "page.html"
    page.write_text(build_page("title", harmful), "utf-8")
    assert "data-ran" not in browse(page, tmp_path / "profile")
    assert asked == []


def _one_word(text: str) -> Attribution:
    return Attribution(text, 0, [(0, len(text))], np.ones(1, np.float32))


def test_hostile_labels_and_texts_run_nothing(tmp_path, server):
    url, asked = server
    hostile = [payload.format(run=MARK, url=url) for payload in PAYLOADS]
    num_classes = len(hostile)
    labels = np.tile(np.arange(num_classes), 20)
    predicted = np.where(np.arange(len(labels)) % 3, labels, (labels + 1) % num_classes)
    folder = tmp_path / "<img src=x onerror=document.documentElement.dataset.ran=1>"
    folder.mkdir()
    source, _, _ = _write(
        folder, labels, predicted, hostile,
        examples={doc: hostile[doc % num_classes] for doc in range(len(labels))},
        summary={
            "device": hostile[0], "versions": {hostile[1]: hostile[3]},
            "findings": [
                {"severity": "high", "title": text, "examples": [text], "effect": text,
                 "mend": text, "sample": 7}
                for text in hostile
            ],
        },
        explained=[
            Explained(text, hostile[0], 0.5, *([_one_word(text)] * 2)) for text in hostile
        ],
    )  # fmt: skip
    assert "onerror" in source  # as text
    shown = browse(folder / "report.html", tmp_path / "profile")
    assert "data-ran" not in shown.split("<body>")[0]
    assert "<script" not in shown
    assert "<iframe" not in shown
    assert "&lt;script&gt;" in shown
    for title in ("Words that decided", "What is wrong with the data"):
        assert title in shown
    assert asked == []
