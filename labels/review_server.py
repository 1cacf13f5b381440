"""Serves the pages of a review, to this machine's browsers alone.

It listens on the loopback address. The page's address carries a token that opens one page, once;
for it the page gets a secret that every later request must carry in a header, which no other site
can send: there are no cookies. Requests whose Host or Origin is another than the server's own are
refused (DNS rebinding), and what is served allows itself nothing from outside.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

from labels.review_desk import Desk, Stale
from labels.review_state import Refused
from shortline import UserError

_PAGE = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LARGEST_REQUEST = 4 << 20
_WAIT_SECONDS = 20.0  # that a page waits for news in one request
_ENDING_SECONDS = 0.3  # in which the pages that wait for news are told that there are no more
_SESSION_HEADER = "X-Review-Page"


class Door:
    """Who may come in: tokens open one page each, pages have secrets."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session = secrets.token_hex(3)  # no other server's pages have these names
        self._tokens: set[str] = set()
        self._pages: dict[str, str] = {}

    def make_token(self) -> str:
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._tokens.add(token)
        return token

    def enter(self, token: str) -> tuple[str, str] | None:
        """(secret, name) of a new page; the token is spent. None where it does not open."""
        with self._lock:
            for known in self._tokens:
                if hmac.compare_digest(known.encode(), token.encode("utf-8", "replace")):
                    self._tokens.remove(known)
                    secret = secrets.token_urlsafe(24)
                    name = f"page {len(self._pages) + 1} ({self._session})"
                    self._pages[secret] = name
                    return secret, name
        return None

    def name(self, secret: str) -> str | None:
        with self._lock:
            for known, name in self._pages.items():
                if hmac.compare_digest(known.encode(), secret.encode("utf-8", "replace")):
                    return name
        return None


class ReviewServer(ThreadingHTTPServer):
    """The desk behind a door, on the loopback address."""

    daemon_threads = True

    def __init__(
        self, desk: Desk, folder: str, port: int, on_enter: Callable[[str], None],
        on_finish: Callable[[], None] = lambda: None,
        is_finished_elsewhere: Callable[[], bool] = lambda: False,
    ):  # fmt: skip
        """
        Args:
          folder: the name to show.
          port: 0 takes one that is free.
          on_enter: gets a fresh address whenever one has been used.
          on_finish: notes it when a page says so; what it raises, the page is told.
          is_finished_elsewhere: asked several times a second.

        Raises:
          UserError: the port is taken.
        """
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise UserError(f"--port {port}: {error.strerror}; choose another, or none") from error
        self.desk, self.folder, self.door, self.on_enter = desk, folder, Door(), on_enter
        self.on_finish, self.is_finished_elsewhere = on_finish, is_finished_elsewhere
        self.is_finished = False
        port = self.server_address[1]
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self.files = {
            f"/{path.name}": (_TYPES[path.suffix], path.read_bytes())
            for path in _PAGE.iterdir()
            if path.suffix in _TYPES
        }
        self.files["/"] = self.files.pop("/review.html")

    def server_bind(self) -> None:
        """Without the look-up of the host's name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def make_address(self) -> str:
        """Opens one page. The token stands behind #, which browsers neither send nor log."""
        return f"http://127.0.0.1:{self.server_address[1]}/#{self.door.make_token()}"

    def finish(self) -> None:
        """Notes that the review is finished, and ends `serve_forever` soon."""
        self.on_finish()
        self._end()

    def service_actions(self) -> None:
        """Called by `serve_forever` between requests."""
        if not self.is_finished and self.is_finished_elsewhere():
            self._end()

    def _end(self) -> None:
        self.is_finished = True
        self.desk.end()
        threading.Timer(_ENDING_SECONDS, self.shutdown).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Browsers hang up when they like; what else fails is told by `_Handler`."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "shortline", ""
    timeout = 60
    server: ReviewServer

    def do_GET(self) -> None:
        if self._is_strange():
            return
        kind, content = self.server.files.get(self.path.split("?")[0], ("", b""))
        if not kind:
            self._answer(404, {"error": "there is nothing here"})
            return
        self._send(200, kind + "; charset=utf-8", content)

    def do_POST(self) -> None:
        """Every request is an object of JSON, and so is every answer."""
        if self._is_strange():
            return
        try:
            asked = self._read()
        except ValueError as error:
            self.close_connection = True  # the rest of the request may still be coming
            self._answer(400, {"error": str(error)})
            return
        if self.path == "/api/enter":
            self._enter(str(asked.get("token", "")))
            return
        name = self.server.door.name(self.headers.get(_SESSION_HEADER, ""))
        if name is None:
            self._answer(403, {"error": "this page has no way in; use a fresh address"})
            return
        self._answer(*self._work(asked, name))

    def _is_strange(self) -> bool:
        """Answers requests that another site or another host name has made."""
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site")
        hosts = self.server.hosts
        origins = {f"http://{host}" for host in hosts}
        wrong = None
        if self.headers.get("Host") not in hosts:
            wrong = "Host"
        elif (origin is not None or self.command == "POST") and origin not in origins:
            wrong = "Origin"
        elif self.command == "POST" and site not in (None, "same-origin"):
            wrong = "Sec-Fetch-Site"
        if wrong:
            self.close_connection = True
            self._answer(403, {"error": f"{wrong}: not of this server; forward the same port"})
        return wrong is not None

    def _read(self) -> dict[str, Any]:
        if self.headers.get_content_type() != "application/json":
            raise ValueError("Content-Type: must be application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > _LARGEST_REQUEST:
            raise ValueError(f"Content-Length: must be given, and at most {_LARGEST_REQUEST}")
        try:
            asked = json.loads(self.rfile.read(int(length)))
            json.dumps(asked, ensure_ascii=False).encode()  # lone surrogates are no text
        except RecursionError:
            raise ValueError("nested too deep") from None
        if not isinstance(asked, dict):
            raise ValueError("must be an object of JSON")
        return asked

    def _enter(self, token: str) -> None:
        entered = self.server.door.enter(token)
        if entered is None:
            self._answer(403, {"error": "this address has been used, or is another run's"})
            return
        self._answer(200, {"secret": entered[0], "name": entered[1]})
        self.server.on_enter(self.server.make_address())

    def _work(self, asked: Mapping[str, Any], name: str) -> tuple[int, dict[str, Any]]:
        desk, since = self.server.desk, asked.get("since")
        since = since if type(since) is int else 0
        try:
            if self.path == "/api/decide":
                try:
                    done = desk.decide(asked, name)
                    return 200, {"done": done, "told": desk.tell(done), **desk.changes(since)}
                except Refused as error:
                    kind = "stale" if isinstance(error, Stale) else "refused"
                    return 409, {kind: str(error), **desk.changes(since)}
            return 200, self._look(desk, asked, name, since)
        except Refused as error:
            return 409, {"refused": str(error)}
        except UserError as error:
            return 500, {"error": str(error)}
        except OSError as error:
            return 507, {"error": f"the journal could not be written: {error.strerror}"}
        except Exception as error:  # the page must hear of it; the terminal gets the rest
            super(ReviewServer, self.server).handle_error(self.request, self.client_address)
            return 500, {"error": f"{type(error).__name__}; the terminal says more"}

    def _look(self, desk: Desk, asked: Mapping[str, Any], name: str, since: int) -> dict[str, Any]:
        if self.path == "/api/state":
            return {"name": name, "folder": self.server.folder, **desk.state()}
        if self.path == "/api/changes":
            return {**desk.wait(since, _WAIT_SECONDS), "finished": self.server.is_finished}
        if self.path == "/api/address":
            return {"address": self.server.make_address()}
        if self.path == "/api/finish":
            self.server.finish()
            return {}
        return desk.look(self.path.removeprefix("/api/"), asked)

    def _answer(self, code: int, answer: Mapping[str, Any]) -> None:
        content = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
        self._send(code, "application/json", content.encode("utf-8", "replace"))

    def _send(self, code: int, kind: str, content: bytes) -> None:
        self.send_response(code)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: texts of requests must not reach the terminal."""
