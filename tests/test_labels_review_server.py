"""The review's server: who may come in, what it says; pages do not overwrite each other."""

from __future__ import annotations

import http.client
import threading

import pytest

from labels.journal import read_journal
from labels.review import FINISHED, JOURNAL, finish, main, review
from labels.review_data import read_review_data
from labels.review_desk import Desk
from labels.review_server import ReviewServer
from labels.review_state import NOISE
from shortline import UserError
from tests.review_folder import write_folder
from tests.review_page import Page


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "tickets")


@pytest.fixture
def server(folder):
    desk = Desk(read_review_data(folder), folder / JOURNAL)
    addresses: list[str] = []
    with ReviewServer(desk, "tickets", 0, addresses.append) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def page(server):
    return Page(server).enter(server.make_address())


def test_it_listens_on_the_loopback_address_alone(server):
    assert server.server_address[0] == "127.0.0.1"


def test_a_token_opens_one_page_once(server):
    address = server.make_address()
    first = Page(server).enter(address)
    assert first.post("/api/state")[0] == 200
    status, answer = Page(server).post("/api/enter", {"token": address.split("#")[1]})
    assert status == 403
    assert "used" in answer["error"]
    for token in ("", "x", "é", None, 7):
        assert Page(server).post("/api/enter", {"token": token})[0] == 403


PATHS = (
    "state", "changes", "detail", "documents", "preview", "history", "decide", "address", "finish",
)  # fmt: skip


def test_nothing_is_said_to_who_has_no_way_in(server):
    for path in PATHS:
        for secret in ("", "wrong", "é".encode().decode("latin-1")):
            status, answer = Page(server).post(f"/api/{path}", X_Review_Page=secret)
            assert status == 403
            assert list(answer) == ["error"]
    assert not server.is_finished


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1:1"},
        {"Host": None},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": None},
        {"Origin": "https://127.0.0.1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_other_sites_and_other_host_names_are_refused(page, headers):
    assert page.post("/api/state", **headers)[0] == 403
    assert page.post("/api/state", Host=f"localhost:{page.port}")[0] == 200


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{", {}),
        (b"[]", {}),
        (b"[" * 100_000, {}),
        (b'{"a": "\\ud800"}', {}),
        (b"\xff", {}),
        (b"{}", {"Content_Type": "text/plain"}),
        (b"{}", {"Content_Type": None}),
        (b"{}", {"Content_Length": "x"}),
        (b"{}", {"Content_Length": "-1"}),
        (b"{}", {"Content_Length": "99999999999"}),
        (b"{}", {"Content_Length": "²"}),
    ],
)
def test_bad_requests_are_answered(page, body, headers):
    headers = {k: v.encode().decode("latin-1") if v else v for k, v in headers.items()}
    assert page.post("/api/state", body, **headers)[0] == 400
    assert page.post("/api/state")[0] == 200


NONSENSE: list[dict] = [
    {"id": 10**9}, {"id": "x"}, {"id": [1]}, {"id": True}, {"since": "x", "id": None},
    {"id": 0, "how": 3}, {"id": 0, "how": {"kind": "x"}}, {"id": 0, "holding": 3, "offset": -1},
    {"id": 0, "how": {"kind": "parts", "num": 1e9}}, {"id": 0, "how": {"kind": "points"}},
    {"id": 0, "how": {"kind": "points", "points": [10**30]}},
    {"action": "rename", "seen": 3}, {"action": "rename", "seen": [[[], {}]]},
    {"action": ["x"], "seen": [[0, 0]]}, {"action": "undo", "of": [1]},
    {"action": "rename", "seen": [[0, 0]], "label": "\u202e"},
    {"action": "rename", "seen": [[0, 0]], "label": "x" * 201},
    {"action": "split", "seen": [[0, 0]], "how": {"kind": "parts", "num": 2}, "labels": [1, 2]},
    {"action": "split", "seen": [], "how": {"kind": "parts", "num": 2}, "labels": ["a"]},
    {"action": "keep", "seen": [[NOISE, 0]]}, {"action": "merge", "seen": [[0, 0]]},
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS[1:7])
def test_nonsense_is_refused_and_nothing_decided(server, page, folder, path, monkeypatch):
    monkeypatch.setattr("labels.review_server._WAIT_SECONDS", 0.0)
    before = page.post("/api/state")[1]
    for asked in NONSENSE:
        status, answer = page.post(f"/api/{path}", asked)
        assert status in ((409,) if path == "decide" else (200, 409)), (asked, answer)
    assert page.post("/api/state")[1] == before
    assert read_journal(folder / JOURNAL) == []


def test_what_is_served_allows_itself_nothing_from_outside(server):
    for path in server.files:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        content = answer.read().decode()
        policy = answer.getheader("Content-Security-Policy", "")
        assert answer.status == 200
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert "require-trusted-types-for 'script'" in policy
        assert answer.getheader("X-Content-Type-Options") == "nosniff"
        for outside in (
            "https:",
            "//cdn",
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ):
            assert outside not in content, path
        connection.close()


@pytest.mark.parametrize(
    "path", ["/../review.py", "/%2e%2e/journal.py", "/review.html", "/nothing"]
)
def test_only_the_page_is_served(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    connection.putrequest("GET", path)
    connection.endheaders()
    assert connection.getresponse().status == 404
    connection.close()


def test_a_decision_is_in_the_journal_when_it_is_answered(page, folder):
    for number, (action, groups, more) in enumerate(
        [
            ("rename", [(0, 0)], {"label": " refund  wanted "}),
            ("merge", [(0, 1), (1, 0)], {}),
            ("keep", [(0, 2), (3, 0)], {}),
            ("drop", [(4, 0)], {}),
            ("undo", [], {}),
        ],
        1,
    ):
        status, answer = page.decide(action, *groups, **more)
        assert (status, answer.get("done")) == (200, number), answer
        assert len(read_journal(folder / JOURNAL)) == number
    decisions = read_journal(folder / JOURNAL)
    assert {d.by for d in decisions} == {page.post("/api/state")[1]["name"]}
    assert decisions[0].label == "refund wanted"
    assert decisions[-1].of == 4


def test_a_restart_stands_where_the_last_one_stopped(page, folder):
    page.decide("merge", (0, 0), (1, 0))
    page.decide("noise", (3, 0))
    page.decide("split", (5, 0), how={"kind": "parts", "num": 2}, labels=["half"])
    status, before = page.post("/api/state")
    again = Desk(read_review_data(folder), folder / JOURNAL)
    assert status == 200
    assert again.num_decisions == 3
    strip = ("name", "folder")
    assert {k: v for k, v in before.items() if k not in strip}["last"] == again.state()["last"]
    key = {group["id"]: group for group in before["groups"]}
    for group in again.state()["groups"]:
        group.pop("near"), key[group["id"]].pop("near")  # of equals, either may be the nearest
        assert group == key[group["id"]]


def test_a_stale_decision_is_refused_and_shown(server, page, folder):
    other = Page(server).enter(server.make_address())
    assert page.decide("rename", (0, 0), label="mine")[0] == 200
    for action, groups, more in (
        ("rename", [(0, 0)], {"label": "theirs"}),
        ("merge", [(3, 0), (0, 0)], {}),
        ("drop", [(0, 0)], {}),
        ("split", [(0, 0)], {"how": {"kind": "parts", "num": 2}, "labels": ["half"]}),
    ):
        other.last = 0
        status, answer = other.decide(action, *groups, **more)
        assert status == 409
        assert "page 1" in answer["stale"]
        assert "to “mine”" in answer["stale"]
        assert {g["id"]: g["name"] for g in answer["groups"]}[0] == "mine"
    assert len(read_journal(folder / JOURNAL)) == 1
    assert other.decide("rename", (0, 1), label="theirs")[0] == 200


def test_of_two_who_decide_at_once_one_is_refused(server):
    pages = [Page(server).enter(server.make_address()) for _ in range(4)]
    statuses: list[int] = []

    def rename(page: Page, name: str) -> None:
        statuses.append(page.decide("rename", (2, 0), label=name)[0])

    threads = [threading.Thread(target=rename, args=(p, f"n {i}")) for i, p in enumerate(pages)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 409, 409, 409]


def test_two_processes_see_each_others_decisions(server, page, folder):
    other = Desk(read_review_data(folder), folder / JOURNAL)  # as another process would have it
    other.decide({"action": "rename", "seen": [[0, 0]], "label": "theirs"}, "elsewhere")
    status, answer = page.decide("rename", (0, 0), label="mine")
    assert status == 409
    assert "elsewhere" in answer["stale"]
    page.decide("drop", (4, 0))
    assert {g["id"] for g in other.wait(1, 5.0)["groups"]} >= {4}


def listen(server) -> tuple[threading.Thread, list[dict]]:
    """Another page, which waits for news; what it hears is in the list when the thread ends."""
    other = Page(server).enter(server.make_address())
    heard: list[dict] = []
    listening = threading.Thread(
        target=lambda: heard.append(other.post("/api/changes", {"since": 0})[1])
    )
    listening.start()
    return listening, heard


def test_pages_hear_of_each_other(server, page):
    listening, heard = listen(server)
    page.decide("merge", (0, 0), (1, 0))
    listening.join(10)
    assert heard[0]["last"] == 1
    assert heard[0]["gone"] == [1]
    assert 0 in {group["id"] for group in heard[0]["groups"]}


def test_undo_and_redo_are_of_the_page_that_asks(server, page):
    other = Page(server).enter(server.make_address())
    page.decide("rename", (0, 0), label="first")
    page.decide("rename", (0, 1), label="second")
    other.decide("drop", (3, 0))
    names = lambda: {g["id"]: g["name"] for g in page.post("/api/state")[1]["groups"]}  # noqa: E731
    before = names()
    assert page.decide("undo")[0] == 200
    assert names()[0] == "first"
    assert page.decide("undo")[0] == 200
    assert page.decide("undo")[1]["refused"] == "there is nothing to undo"
    assert page.decide("redo")[0] == 200
    assert page.decide("redo")[0] == 200
    assert page.decide("redo")[1]["refused"] == "there is nothing to redo"
    assert names() == before
    states = {g["id"]: g["status"] for g in page.post("/api/state")[1]["groups"]}
    assert states[3] == "dropped"


def test_undo_is_of_the_pages_of_one_server_alone(server, folder):
    """Each server counts its pages from 1."""
    mine = Page(server).enter(server.make_address())
    desk = Desk(read_review_data(folder), folder / JOURNAL)  # as another process would have it
    with ReviewServer(desk, "tickets", 0, lambda address: None) as other_server:
        threading.Thread(target=other_server.serve_forever, args=(0.05,), daemon=True).start()
        other = Page(other_server).enter(other_server.make_address())
        assert mine.decide("rename", (0, 0), label="mine")[0] == 200
        other.post("/api/changes", {"since": 0})
        assert other.decide("undo")[1]["refused"] == "there is nothing to undo"
        assert other.decide("drop", (3, 0))[0] == 200
        by = mine.post("/api/state")[1]["name"]
        told = other.decide("undo", of=1)[1]["told"]  # by name, as the history offers it
        assert told.startswith("undone: renamed")
        assert told.endswith(f"to “mine” ({by})")
        other_server.shutdown()


def test_names_are_taken_once(page):
    name = page.post("/api/state")[1]["groups"][1]["name"]
    status, answer = page.decide("rename", (0, 0), label=name)
    assert status == 409
    assert "another cluster is called" in answer["refused"]


def test_a_split_does_what_was_shown(page):
    for how in (
        {"kind": "parts", "num": 3},
        {"kind": "unmerged"},
        {"kind": "holding", "text": "PLEASE"},
    ):
        state = {g["id"]: g for g in page.post("/api/state")[1]["groups"]}
        id = 2 if how["kind"] == "unmerged" else max(state, key=lambda i: state[i]["texts"])
        status, shown = page.post("/api/preview", {"id": id, "how": how})
        if status == 409:
            assert "left" in shown["refused"] or "leave" in shown["refused"]
            continue
        names = [part["name"] for part in shown["parts"]]
        status, answer = page.decide("split", (id, state[id]["version"]), how=how, labels=names)
        assert status == 200, answer
        after = {g["name"]: g["size"] for g in page.post("/api/state")[1]["groups"]}
        assert {part["name"]: part["size"] for part in shown["parts"]}.items() <= after.items()
        assert after[state[id]["name"]] == shown["rest"]["size"]


def test_documents_are_found_by_their_letters(page):
    state = page.post("/api/state")[1]["groups"]
    group = max((g for g in state if g["texts"] < 200), key=lambda g: g["texts"])
    asked = {"id": group["id"], "holding": "Please", "offset": 0}
    found = page.post("/api/documents", asked)[1]
    everything = page.post("/api/documents", asked | {"holding": ""})[1]
    assert everything["num"] == group["texts"]
    assert everything["size"] == group["size"]
    holding = [d for d in everything["documents"] if "please" in d["text"]]
    assert found["documents"] == holding


def test_a_full_disk_is_told_and_nothing_is_decided(page, monkeypatch):
    def fail(fd):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", fail)
        status, answer = page.decide("drop", (0, 0))
    assert status == 507
    assert answer["error"] == "the journal could not be written: No space left on device"
    assert page.post("/api/state")[1]["last"] == 0
    assert page.decide("drop", (0, 0))[0] == 200


def test_finishing_is_told_to_what_comes_after(folder, monkeypatch):
    def enter(address: str) -> None:
        return None

    servers = []

    class Seen(ReviewServer):
        def __init__(self, *given):
            super().__init__(*given)
            servers.append(self)

        def serve_forever(self, poll_interval=0.05):
            address = self.make_address()
            threading.Thread(target=lambda: Page(self).enter(address).post("/api/finish")).start()
            super().serve_forever(0.05)

    monkeypatch.setattr("labels.review_server.ReviewServer", Seen)
    assert not (folder / FINISHED).exists()
    assert review(folder)
    assert (folder / FINISHED).exists()


def test_what_was_made_anew_meanwhile_is_not_finished(folder):
    """The clusters that were looked at count, not those that are there by now."""
    opened = read_review_data(folder).key
    with ReviewServer(
        Desk(read_review_data(folder), folder / JOURNAL), "tickets", 0, lambda address: None,
        lambda: finish(folder, opened),
    ) as server:  # fmt: skip
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        page = Page(server).enter(server.make_address())
        (folder / "merge" / "step.json").write_text('{"key": "of other ones", "counts": {}}')
        status, answer = page.post("/api/finish")
        assert status == 500
        assert "made anew" in answer["error"]
        assert not server.is_finished
        assert not (folder / FINISHED).exists()
        server.shutdown()


def test_finishing_elsewhere_ends_the_waiting(folder):
    key = read_review_data(folder).key
    ended: list[bool] = []
    waiting = threading.Thread(target=lambda: ended.append(review(folder)))
    waiting.start()
    while not (folder / JOURNAL).exists():
        assert waiting.is_alive()
    finish(folder, key)
    waiting.join(30)
    assert ended == [True]


def test_all_pages_hear_that_the_review_is_finished(server, page):
    listening, heard = listen(server)
    assert page.post("/api/finish")[0] == 200
    listening.join(10)
    assert heard[0]["finished"] is True


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["{folder}/none"], "no such folder"),
        (["{folder}/clean"], "points.parquet: is not there"),
        (["{folder}", "--port", "70000"], "--port 70000: must be 0 to 65535"),
        (["{folder}", "--export-csv", "a", "--import-csv", "b"], "one at a time"),
    ],
)
def test_users_mistakes_are_one_line(folder, argv, said):
    with pytest.raises(UserError) as raised:
        main([word.format(folder=folder) for word in argv])
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_port_that_is_taken_is_named(folder, server):
    with pytest.raises(UserError, match=r"--port \d+: Address already in use"):
        main([str(folder), "--port", str(server.server_address[1])])
