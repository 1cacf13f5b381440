"""Talks to the review's server as its page does, without a browser."""

from __future__ import annotations

import http.client
import json

from labels.review_server import ReviewServer


class Page:
    """Talks as the page in a browser does."""

    def __init__(self, server: ReviewServer | int):
        """`server`: itself, or its port."""
        self.port = server if isinstance(server, int) else server.server_address[1]
        self.secret = ""
        self.last = 0

    def post(self, path: str, body: object = None, **headers: str | None) -> tuple[int, dict]:
        given = {
            "Host": f"127.0.0.1:{self.port}",
            "Origin": f"http://127.0.0.1:{self.port}",
            "Content-Type": "application/json",
            "X-Review-Page": self.secret,
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        connection.putrequest("POST", path, skip_host=True, skip_accept_encoding=True)
        for name, value in ({"Content-Length": str(len(content))} | given).items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(content)
        answer = connection.getresponse()
        read = json.loads(answer.read())
        connection.close()
        return answer.status, read

    def enter(self, address: str) -> Page:
        status, answer = self.post("/api/enter", {"token": address.split("#")[1]})
        assert status == 200, answer
        self.secret = answer["secret"]
        self.last = self.post("/api/state")[1]["last"]
        return self

    def decide(self, action: str, *groups: tuple[int, int], **more) -> tuple[int, dict]:
        asked = {"action": action, "seen": list(map(list, groups)), "since": self.last, **more}
        status, answer = self.post("/api/decide", asked)
        self.last = answer.get("last", self.last)
        return status, answer
