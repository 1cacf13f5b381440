"""Workers meet, and each end is noticed by the others: real processes, without TensorFlow."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.workers import ROOT, free_addresses

SCRIPT = """
import ctypes, json, sys, time
import model.lifeline as module
from model.cluster import Cluster
from shortline import run_command, UserError
addresses, index, gpus, wait, then = json.loads(sys.argv[1])
module._BEAT_SECONDS, module._SILENT_SECONDS, module._PATIENT_SECONDS = 0.2, 2.0, 0.5
def main(argv):
    with module.Lifeline(Cluster(tuple(addresses), index), gpus, wait) as lifeline:
        print("met", flush=True)
        if then == "part":
            time.sleep(0.5)
            lifeline.part()
        elif then == "connect":
            with lifeline.connecting():
                ctypes.PyDLL(None).sleep(4)  # PyDLL: without letting other threads run
            time.sleep(1)
            lifeline.part()
            time.sleep(1)
        elif then == "fail":
            raise UserError("the shard is damaged")
        elif then == "crash":
            raise ZeroDivisionError
        elif then == "interrupt":
            raise KeyboardInterrupt
        elif then == "leave":
            return 75
        else:
            time.sleep(30)
run_command(main)
"""


@pytest.fixture
def start():
    processes = []

    def start_worker(addresses, index, then="stay", gpus=0, wait=20.0):
        argument = json.dumps([addresses, index, gpus, wait, then])
        worker = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, argument],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        processes.append(worker)
        return worker

    yield start_worker
    for process in processes:
        process.kill()
        process.communicate()


def _read_met(workers):
    for worker in workers:
        line = worker.stdout.readline()
        while line.startswith("waiting for"):
            line = worker.stdout.readline()
        assert line == "met\n"


def _read_stop(worker) -> str:
    """Its last words, without those of its patience."""
    lines = worker.stderr.read().splitlines(keepends=True)
    return "".join(line for line in lines if ": waiting for" not in line)


def test_workers_meet_in_any_order_and_part(start):
    addresses = free_addresses(3)
    last_first = [start(addresses, index, "part") for index in (2, 1)]
    time.sleep(0.3)
    workers = [start(addresses, 0, "part"), *last_first]
    _read_met(workers)
    for worker in workers:
        assert worker.wait(20) == 0
        assert _read_stop(worker) == ""


@pytest.mark.parametrize("killed", [0, 1, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_frozen_worker_is_named_by_the_others(start, killed, number):
    addresses = free_addresses(3)
    workers = [start(addresses, index) for index in range(3)]
    _read_met(workers)
    workers[killed].send_signal(number)
    others = [worker for index, worker in enumerate(workers) if index != killed]
    why = "is gone" if number == signal.SIGKILL else "has been silent for 2 s"
    for worker in others:
        assert worker.wait(20) == 75
        text = _read_stop(worker)
        expected = f"stopped: worker {killed} ({addresses[killed]}) {why}; start all workers again"
        if number == signal.SIGSTOP and killed == 0:  # worker 2 may hear of it through worker 1
            assert text.startswith("stopped: worker 0 ")
        else:
            assert text == expected + "\n"


@pytest.mark.parametrize(
    ("then", "code", "own_code", "message"),
    [
        ("fail", 2, 2, "ended: the shard is damaged\n"),
        ("crash", 75, 1, "failed; start all workers again\n"),
        ("leave", 75, 75, "was interrupted; start all workers again\n"),
        ("interrupt", 75, 130, "was interrupted; start all workers again\n"),
    ],
)
def test_why_a_worker_ended_is_told_to_the_others(start, then, code, own_code, message):
    addresses = free_addresses(3)
    workers = [start(addresses, index, then if index == 1 else "stay") for index in range(3)]
    assert workers[1].wait(20) == own_code
    for index in (0, 2):
        assert workers[index].wait(20) == code
        text = workers[index].stderr.read()
        assert text == f"stopped: worker 1 ({addresses[1]}) {message}"


def test_a_worker_that_does_not_come_is_named(start):
    addresses = free_addresses(3)
    there = [start(addresses, index, wait=2.0) for index in (0, 1)]
    assert [worker.wait(20) for worker in there] == [2, 2]
    output = [worker.communicate() for worker in there]
    assert output[0][0] == f"waiting for worker 2 ({addresses[2]})\n"
    assert f"worker 0 waited in vain for worker 2 ({addresses[2]}); see whether" in output[0][1]
    assert f"waited in vain for worker 0 ({addresses[0]}) and the others" in output[1][1]


def test_other_numbers_of_gpus_are_refused_on_both_sides(start):
    addresses = free_addresses(2)
    workers = [start(addresses, index, gpus=index + 1) for index in range(2)]
    for worker in workers:
        assert worker.wait(20) == 2
        words = "worker 1 has another number of GPUs (2) than worker 0 (1); give each the same"
        assert words in worker.stderr.read()


def test_a_taken_port_is_named(start):
    addresses = free_addresses(2)
    with socket.create_server(("", int(addresses[0].rpartition(":")[2]))):
        worker = start(addresses, 0)
        assert worker.wait(20) == 2
        assert "of worker 0 (127.0.0.1:" in worker.stderr.read()


def _call(address: str, words: bytes) -> bytes:
    """What is answered to them at the address, once somebody listens there."""
    host, port = address.split(":")
    for _ in range(100):
        with contextlib.suppress(OSError):
            socket.create_connection((host, int(port)), timeout=5).close()
            break
        time.sleep(0.05)
    with socket.create_connection((host, int(port)), timeout=5) as stranger:
        stranger.sendall(words)
        return stranger.recv(1000)


def test_strangers_at_the_port_are_sent_away(start):
    """Whatever they say; a worker of this training is waited for all the same."""
    addresses = free_addresses(2)
    chief = start(addresses, 0, "part")
    ours = json.dumps(addresses).encode()
    for words in [
        b"GET / HTTP/1.1\r\n\r\n",
        b"[" * 2500 + b"\n",
        b'{"worker": Infinity, "gpus": 0, "addresses": []}\n',
    ]:
        assert _call(addresses[0], words) == b""
    for index, listed in [(1, b"[]"), (7, ours), (0, ours), (-1, ours)]:
        words = b'{"worker": %d, "gpus": 0, "addresses": %s}\n' % (index, listed)
        answer = json.loads(_call(addresses[0], words))
        assert "another list of workers" in answer["refused"]
    host, port = addresses[0].split(":")
    with socket.create_connection((host, int(port)), timeout=5):  # and says nothing
        began = time.monotonic()
        worker = start(addresses, 1, "part")
        assert [chief.wait(20), worker.wait(20)] == [0, 0]
        assert time.monotonic() - began < 5


def test_silence_while_the_process_was_held_up_counts_for_nothing(start):
    """TensorFlow lets no Python run while it connects: neither beats nor listening."""
    addresses = free_addresses(2)
    workers = [start(addresses, index, "connect") for index in range(2)]
    _read_met(workers)
    for worker in workers:
        assert worker.wait(20) == 0
        assert _read_stop(worker) == ""
