"""Ingest against damaged files: `python -m tests.fuzz_ingest --minutes 10 --seed 0 --keep DIR`.

Valid files of every format are cut, spliced, repeated and have bits flipped, and are ingested
under random flags in a process of its own, which a crash or a hang cannot take further. Allowed
are a shard set that holds what its counts say, or exit code 2 with one printable line and nothing
left behind. All else is a finding: the file, the flags and what was said are kept in DIR.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
MOST_SECONDS = 60.0
MOST_BYTES = 2 << 30
"""Memory that one ingest may take beyond what TensorFlow has taken before."""
_JOBS_OF_A_PROCESS = 400


def seed_files() -> dict[str, bytes]:
    """Small valid files of every format, by name."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    rows = [(f'text {i} é, "日本" ' + "word " * (i % 30), f"c{i % 5}") for i in range(300)]
    when = [f"2024-{1 + i % 12:02d}-{1 + i % 28:02d}T10:00:00.5+0{i % 3}:00" for i in range(300)]
    columns = {"text": [t for t, _ in rows], "label": [c for _, c in rows]}
    table = pa.table({**columns, "n": range(300), "when": when})
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(table, sink)
    csv_bytes = sink.getvalue().to_pybytes()
    jsonl = "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()
    files = {
        "a.csv": csv_bytes,
        "a.csv.gz": pa.compress(csv_bytes, "gzip", asbytes=True),
        "a.csv.zst": pa.compress(csv_bytes, "zstd", asbytes=True),
        "a.tsv": "".join(f"{a}\t{b}\n" for a, b in [("text", "label"), *rows]).encode(),
        "a.jsonl": jsonl,
        "a.jsonl.gz": pa.compress(jsonl, "gzip", asbytes=True),
        "a.ft": "".join(f"__label__{c} {t}\n" for t, c in rows).encode(),
    }
    variants = {
        "plain": {"compression": "none", "use_dictionary": False},
        "snappy": {"compression": "snappy", "row_group_size": 100},
        "zstd": {"compression": "zstd", "write_page_checksum": True},
        "gzip": {"compression": "gzip", "data_page_version": "2.0", "data_page_size": 1000},
        "lz4": {"compression": "lz4", "write_page_index": True, "use_dictionary": ["label"]},
        "delta": {"use_dictionary": False, "column_encoding": {
            "text": "DELTA_BYTE_ARRAY", "label": "DELTA_LENGTH_BYTE_ARRAY", "n": "PLAIN",
            "when": "PLAIN"}},
    }  # fmt: skip
    typed = table.set_column(1, "label", table["label"].dictionary_encode())
    for name, options in variants.items():
        for kind, content in (("", table), ("_typed", typed)):
            sink = pa.BufferOutputStream()
            pq.write_table(content, sink, **options)
            files[f"{name}{kind}.parquet"] = sink.getvalue().to_pybytes()
    return files


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """The file with one to six kinds of damage."""
    data = bytearray(content)
    for _ in range(random.integers(1, 7)):
        if not data:
            break
        at, size = int(random.integers(len(data))), int(random.integers(1, 200))
        # the footer of a Parquet file, where most of its meaning is, is hit half of the time
        if random.random() < 0.5:
            at = max(0, len(data) - int(random.integers(1, 2000)))
        kind = random.integers(9)
        if kind == 0:
            del data[at:]
        elif kind <= 2:
            data[at] ^= 1 << int(random.integers(8))
        elif kind == 3:
            data[at] = int(random.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF, 0x0A, 0x22, 0x2C]))
        elif kind == 4:
            del data[at : at + size]
        elif kind == 5:
            data[at : at + size] = bytes(random.integers(0, 256, size, np.uint8))
        elif kind == 6:
            data[at:at] = data[at : at + size] * int(random.choice([1, 3, 2000]))
        elif kind == 7:
            other = int(random.integers(len(data)))
            data[at : at + size] = data[other : other + size]
        else:
            data[at : at + 4] = int(random.choice([0, 1, 2**31 - 1, 2**32 - 1])).to_bytes(
                4, "little"
            )
    return bytes(data)


def draw_flags(random: np.random.Generator) -> list[str]:
    flags: list[str] = []
    choices = (
        ["--skip-bad-rows"], ["--strict"], ["--valid", "0"], ["--test", "0.2"],
        ["--text", "text"], ["--label", "n"], ["--split-seed", "7"], ["--vocab-size", "50"],
        ["--split", "group"], ["--split", "time", "--time", str(random.choice(["n", "when"]))],
        ["--format", str(random.choice(["csv", "tsv", "jsonl", "parquet", "fasttext"]))],
        ["--delimiter", str(random.choice([",", ";", '"', "\n", "\0", "é", "a"]))],
    )  # fmt: skip
    for choice in choices:
        if random.random() < (0.1 if choice[0] in ("--format", "--delimiter") else 0.2):
            flags += choice
    return flags


def run_command_here(main: Callable[[], object]) -> tuple[int | str | None, str]:
    """(exit code, what stderr says) of a command, in this process; a traceback has no code."""
    from shortline import run_command

    errors, before = io.StringIO(), signal.getsignal(signal.SIGTERM)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        try:
            run_command(lambda _: main() and None)
            code = None
        except SystemExit as exit_:
            code = exit_.code
        except BaseException:
            return None, traceback.format_exc()
        finally:
            signal.signal(signal.SIGTERM, before)
    return code, errors.getvalue()


def judge(folder: Path, argv: list[str]) -> list[str]:
    """Ingests to `folder`/out and tells what is wrong with how it went: nothing, as a rule.

    `folder` must hold nothing before but files whose names start with `in`.
    """
    from shortline import printable
    from tfdata.ingest import main
    from tfdata.shards import PARTS, open_shards, read_batches

    code, said = run_command_here(lambda: main([*argv, "--out", str(folder / "out")]))
    left = sorted(path.name for path in folder.iterdir() if not path.name.startswith("in"))
    wrong = []
    if code == 0:
        shard_set = open_shards(folder / "out")
        num_docs = sum(len(ids) for part in PARTS for _, ids in read_batches(shard_set, part))
        counts = shard_set.counts
        dropped = sum(v for k, v in counts.items() if k.startswith("dropped_"))
        if not num_docs == counts["rows_kept"] == sum(map(shard_set.num_docs, PARTS)):
            wrong.append(f"{num_docs} documents written, {counts['rows_kept']} kept")
        if counts["rows_read"] != counts["rows_kept"] + dropped + counts["bad_rows"]:
            wrong.append(f"rows lost: {counts}")
        if left != ["out"]:
            wrong.append(f"left behind: {left}")
    elif code == 2:
        if left:
            wrong.append(f"left behind: {left}")
        if not said.startswith("error: ") or printable(said[:-1]) != said[:-1]:
            wrong.append("not one printable line")
    else:
        wrong.append(f"exit code {code}")
    return [*wrong, said] if wrong else []


def work() -> None:
    """Reads jobs, JSON a line, from stdin, and answers each with a line."""
    from shortline import import_tensorflow

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import_tensorflow()
    for line in sys.stdin:
        folder, argv = json.loads(line)
        before = _peak_bytes(reset=True)
        wrong = judge(Path(folder), argv)
        if (grown := _peak_bytes() - before) > MOST_BYTES:
            wrong.append(f"took {grown >> 20} MiB")
        print(json.dumps(wrong), file=answers, flush=True)


def _peak_bytes(reset: bool = False) -> int:
    """The most memory that this process held since the last reset; 0 where /proc is lacking."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


class Worker:
    """A process of `work`, started anew after a crash, a hang or enough jobs."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._jobs = 0

    def run(self, folder: Path, argv: list[str]) -> list[str]:
        import select

        if self._process is None or self._jobs == _JOBS_OF_A_PROCESS:
            self.stop()
            self._process, self._jobs = self._start(), 0
        process, self._jobs = self._process, self._jobs + 1
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([str(folder), argv]) + "\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], MOST_SECONDS + 30 * (self._jobs == 1))[0]:
            self.stop()
            return [f"no answer in {MOST_SECONDS:.0f} s"]
        answer = process.stdout.readline()
        if not answer:
            code = process.wait()
            self.stop()
            return [f"the process died with {code}"]
        return json.loads(answer)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None

    @staticmethod
    def _start() -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz_ingest", "--work"], cwd=ROOT, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def fuzz(minutes: float, seed: int, keep: Path, most: int | None = None) -> Counter[str]:
    """Runs for so long, or for `most` files; counts the files and the findings."""
    random, files, worker = np.random.default_rng(seed), seed_files(), Worker()
    keep.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    until = time.monotonic() + 60 * minutes
    try:
        while time.monotonic() < until and counts["files"] != most:
            name = str(random.choice([*files]))
            counts["files"] += 1
            with tempfile.TemporaryDirectory() as temporary:
                path = Path(temporary, "in." + name.split(".", 1)[1])
                path.write_bytes(mutate(files[name], random))
                flags = draw_flags(random)
                wrong = worker.run(Path(temporary), [str(path), *flags])
                if wrong:
                    counts["findings"] += 1
                    found = keep / f"{seed}-{counts['files']:06d}-{name}"
                    shutil.copyfile(path, found)
                    found.with_name(found.name + ".txt").write_text(
                        json.dumps(flags) + "\n" + "\n".join(wrong), errors="backslashreplace"
                    )
                    print(
                        f"{found}: {wrong[0]}: {wrong[-1].strip().splitlines()[-1][:200]}",
                        flush=True,
                    )
    finally:
        worker.stop()
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir(), "fuzz_ingest"))
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.work:
        work()
        return 0
    counts = fuzz(flags.minutes, flags.seed, flags.keep)
    print(f"{counts['files']:,} files, {counts['findings']:,} findings, kept in {flags.keep}")
    return int(counts["findings"] > 0)


if __name__ == "__main__":
    sys.exit(main())
