"""How the workers of a training meet, and notice within a minute that one of them is gone.

Every worker holds a connection to worker 0 for as long as it lives. A process that ends, by
whatever means, closes it; of a machine that froze nothing more is heard. What one learns, worker 0
passes on, and all end at once: a collective operation that waits for a dead worker cannot be called
off from Python.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

from model.cluster import Cluster
from shortline import EXIT_STOPPED, EXIT_USER_ERROR, UserError, printable

_BEAT_SECONDS, _SILENT_SECONDS = 5.0, 40.0
_PATIENT_SECONDS = 3.0  # before it is said who is waited for
_HELLO_SECONDS = 1.0  # for a caller to say who it is; the others wait meanwhile
_MOST_BYTES, _MOST_WORDS = 4096, 500  # of a message; characters that say why


class Lifeline(contextlib.AbstractContextManager):
    """The connections of this worker; leaving the block well tells the others so."""

    def __init__(self, cluster: Cluster, num_gpus: int, wait_seconds: float):
        """Waits until all workers are there.

        Raises:
          UserError: one did not come in time, or has another number of GPUs.
        """
        self.cluster, self.wait_seconds = cluster, wait_seconds
        self._deaf_until = -math.inf
        self._is_over = threading.Event()
        self._has_parted = False
        self._lock = threading.Lock()
        self.resume_hint = "start all workers again"
        """What a person is to do when a worker is gone."""
        deadline = time.monotonic() + wait_seconds
        if cluster.index == 0:
            self._peers = _Meeting(cluster, num_gpus, deadline).hold()
        else:
            self._peers = {0: _join(cluster, num_gpus, deadline)}
        for index in self._peers:
            threading.Thread(target=self._listen, args=[index], daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if self._is_over.is_set():
            time.sleep(_SILENT_SECONDS)  # another thread is about to end this process
        if isinstance(error, Exception) and is_lost(error):
            self._wait_for_verdict(error)
        self._is_over.set()
        if not self._has_parted:
            is_user = isinstance(error, UserError | OSError)
            is_asked = error is None or isinstance(error, KeyboardInterrupt)
            why = f"ended: {error}" if is_user else "was interrupted" if is_asked else "failed"
            message = f"{self.cluster.name(self.cluster.index)} {why}"
            code = EXIT_USER_ERROR if is_user else EXIT_STOPPED
            self._tell({"gone": message[:_MOST_WORDS], "code": code})
        for peer in self._peers.values():
            peer.close()

    def part(self) -> None:
        """After the last collective operation: from now on, each may end when it likes."""
        self._has_parted = True
        self._tell({"bye": True})

    @contextlib.contextmanager
    def connecting(self) -> Iterator[None]:
        """Within it, no worker's silence counts: none of them runs any Python meanwhile."""
        self._deaf_until = math.inf
        try:
            yield
        finally:
            self._deaf_until = time.monotonic()

    def _beat(self) -> None:
        while not self._is_over.wait(_BEAT_SECONDS):
            self._tell({})

    def _tell(self, message: dict) -> None:
        with self._lock:
            for peer in self._peers.values():
                with contextlib.suppress(OSError):  # whoever listens to it will find out
                    peer.send(message)

    def _listen(self, index: int) -> None:
        peer = self._peers[index]
        reason, code = f"{self.cluster.name(index)} is gone", EXIT_STOPPED
        try:
            while True:
                began = time.monotonic()
                try:
                    message = peer.receive(began + _SILENT_SECONDS)
                except TimeoutError:
                    if began < self._deaf_until:
                        continue
                    raise
                if message.get("bye"):
                    return
                if "gone" in message:
                    reason, code = str(message["gone"]), int(message["code"])
                    break
        except TimeoutError:
            reason = f"{self.cluster.name(index)} has been silent for {_SILENT_SECONDS:.0f} s"
        except (OSError, ValueError, KeyError):
            pass
        self._end(reason, code)

    def _end(self, reason: str, code: int) -> None:
        """Ends this process, and by its message the others; the first reason counts."""
        if self._is_over.is_set() or self._has_parted:
            return
        self._is_over.set()
        self._tell({"gone": reason, "code": code})
        _leave(reason if code == EXIT_USER_ERROR else f"{reason}; {self.resume_hint}", code)

    def _wait_for_verdict(self, error: Exception) -> NoReturn:
        """After a collective operation failed: who is gone will be known soon, and ends this."""
        time.sleep(_SILENT_SECONDS + _BEAT_SECONDS)
        self._is_over.set()
        why = f"the workers lost touch ({str(error).splitlines()[0]}); {self.resume_hint}"
        _leave(why, EXIT_STOPPED)


def is_lost(error: Exception) -> bool:
    """Whether it may be of a collective operation that another worker did not take part in."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return False
    errors = tensorflow.errors
    kinds = errors.UnavailableError, errors.AbortedError, errors.CancelledError
    kinds += errors.DeadlineExceededError, errors.InternalError, errors.FailedPreconditionError
    return isinstance(error, kinds)


def _leave(why: str, code: int) -> NoReturn:
    print(f"stopped: {printable(' '.join(why.split()))}", file=sys.stderr, flush=True)
    os._exit(code)  # the main thread may hang in a collective operation


class _Peer:
    """One end of a connection: JSON objects, a line each."""

    def __init__(self, connection: socket.socket):
        self._socket, self._received = connection, b""

    def send(self, message: dict) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, deadline: float) -> dict:
        """Raises OSError (TimeoutError at the deadline) or ValueError, whatever comes."""
        while b"\n" not in self._received:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            data = self._socket.recv(_MOST_BYTES)
            if not data or len(self._received) > _MOST_BYTES:
                raise ConnectionError("closed")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        try:
            message = json.loads(line)
        except RecursionError:
            raise ValueError("too deep") from None
        if not isinstance(message, dict):
            raise ValueError("not an object")
        return message

    def close(self) -> None:
        self._socket.close()


class _Meeting:
    """Worker 0 waiting for the others, on the port that TensorFlow will use afterwards."""

    def __init__(self, cluster: Cluster, num_gpus: int, deadline: float):
        self._cluster, self._num_gpus, self._deadline = cluster, num_gpus, deadline
        self._peers: dict[int, _Peer] = {}

    def hold(self) -> dict[int, _Peer]:
        address = self._cluster.addresses[0]
        port = int(address.rpartition(":")[2])
        try:
            family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
            listener = socket.create_server(
                ("", port), family=family, dualstack_ipv6=family == socket.AF_INET6
            )
        except OSError as error:
            raise UserError(
                f"port {port} of worker 0 ({address}) cannot be used: {error.strerror}; end what "
                "uses it, or name another port"
            ) from None
        patient = time.monotonic() + _PATIENT_SECONDS
        with listener:
            while len(self._peers) < len(self._cluster) - 1:
                absent = [i for i in range(1, len(self._cluster)) if i not in self._peers]
                names = ", ".join(map(self._cluster.name, absent))
                if time.monotonic() > self._deadline:
                    raise UserError(
                        f"worker 0 waited in vain for {names}; see whether it was started and "
                        f"reaches {address}, or wait longer with --wait-minutes"
                    )
                if time.monotonic() > patient:
                    print(f"waiting for {names}", flush=True)
                    patient = self._deadline
                listener.settimeout(0.5)
                with contextlib.suppress(TimeoutError):
                    self._admit(listener.accept()[0])
        for peer in self._peers.values():
            peer.send({"go": True})
        return self._peers

    def _admit(self, connection: socket.socket) -> None:
        peer = _Peer(connection)
        try:
            hello = peer.receive(time.monotonic() + _HELLO_SECONDS)
            index, gpus = int(hello["worker"]), int(hello["gpus"])
            same = tuple(hello["addresses"]) == self._cluster.addresses
        except (OSError, ValueError, KeyError, TypeError, OverflowError):  # somebody else
            peer.close()
            return
        if not same or not 0 < index < len(self._cluster):
            why = "another list of workers than worker 0; give all the same"
            print(f"sent away: somebody who has {why}", flush=True)
            self._refuse(peer, f"worker {index} has {why}")
            return
        if gpus == self._num_gpus:
            if index in self._peers:  # it was started anew
                self._peers[index].close()
            self._peers[index] = peer
            return
        why = (
            f"worker {index} has another number of GPUs ({gpus}) than worker 0 ({self._num_gpus}); "
            "give each the same --gpus"
        )
        self._refuse(peer, why)
        raise UserError(why)

    def _refuse(self, peer: _Peer, why: str) -> None:
        with contextlib.suppress(OSError):
            peer.send({"refused": why})
        peer.close()


def _join(cluster: Cluster, num_gpus: int, deadline: float) -> _Peer:
    """The connection to worker 0, once all workers are there."""
    host, _, port = cluster.addresses[0].rpartition(":")
    hello = {"worker": cluster.index, "gpus": num_gpus, "addresses": cluster.addresses}
    patient = time.monotonic() + _PATIENT_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            peer = _Peer(socket.create_connection((host.strip("[]"), int(port)), timeout=5))
            peer.send(hello)
            answer = peer.receive(deadline)
            if "refused" in answer:
                raise UserError(str(answer["refused"]))
            if answer.get("go"):
                return peer
        if time.monotonic() > patient:
            name = cluster.name(0)
            print(f"worker {cluster.index}: waiting for {name}", file=sys.stderr, flush=True)
            patient = deadline
        time.sleep(0.2)
    raise UserError(
        f"worker {cluster.index} waited in vain for {cluster.name(0)} and the others; see whether "
        "all were started, or wait longer with --wait-minutes"
    )
