"""Locks: one process at a time, and what a killed one held or left is recognised as stale."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

import train
from model.predict import main as predict
from model.run import RunPaths, check_free, hold_run
from shortline import UserError
from tests.small_run import make_run
from tfdata import generated, ingest
from tfdata.config import IngestConfig, TokenizerConfig
from tfdata.lock import alone_beside, hold_lock, own_temporary
from tfdata.synthetic import write_corpus

ROOT = Path(__file__).parents[1]


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds a lock until it is killed; gives (process, path)."""
    path = tmp_path / "run" / ".lock"
    path.parent.mkdir()
    code = (
        "import pathlib, sys, time\nfrom tfdata.lock import hold_lock\n"
        "with hold_lock(pathlib.Path(sys.argv[1]), print):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process, path
    process.kill()
    process.wait()


def _refuse(words: str) -> None:
    raise UserError(words)


def test_a_lock_names_its_holder_and_is_stale_when_that_is_killed(holder):
    process, path = holder
    with pytest.raises(UserError, match=f"process {process.pid} on .*, since 20"):  # noqa: SIM117
        with hold_lock(path, _refuse):
            pytest.fail("two hold it")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.exists()
    with hold_lock(path, _refuse):
        assert str(os.getpid()) in path.read_text()
    assert not path.exists()


def test_a_folder_where_a_run_is_at_work_is_not_to_be_deleted(holder):
    process, path = holder
    (path.parent / "config.yaml").write_text("docs: 1")
    with pytest.raises(UserError, match=f"process {process.pid} on .*, trains a run there; ") as no:
        check_free(path.parent)
    assert "delete" not in str(no.value)
    process.kill()
    process.wait()
    with pytest.raises(UserError, match="holds another run; choose another folder, delete it"):
        check_free(path.parent)


def test_who_waits_gets_the_lock_that_others_see(tmp_path):
    """The holder deletes the file that the waiting one has opened."""
    path, order, told = tmp_path / "x.lock", [], threading.Event()

    def wait_for_it():
        with hold_lock(path, lambda words: told.set()):
            order.append("second")
            with pytest.raises(UserError), hold_lock(path, _refuse):
                pass

    with hold_lock(path, _refuse):
        thread = threading.Thread(target=wait_for_it)
        thread.start()
        assert told.wait(10)
        time.sleep(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert not path.exists()


def test_a_link_is_refused_and_what_it_leads_to_is_as_it_was(tmp_path):
    (tmp_path / "precious").write_text("thesis")
    (tmp_path / "x.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match=r"x\.lock: is a link; delete it"):  # noqa: SIM117
        with hold_lock(tmp_path / "x.lock", _refuse):
            pytest.fail("it was followed")
    assert (tmp_path / "precious").read_text() == "thesis"


def test_the_lock_file_of_another_process_is_left_to_it(tmp_path):
    path = tmp_path / "x.lock"
    with hold_lock(path, _refuse):
        path.unlink()
        path.write_text("of another")
    assert path.read_text() == "of another"


def test_a_stale_lock_of_another_user_is_taken(tmp_path, monkeypatch):
    path, opened = tmp_path / "x.lock", os.open
    path.write_text("process 1 on elsewhere")

    def refuse_to_write(name, flags, *rest, **options):
        if name == path and flags & os.O_ACCMODE != os.O_RDONLY:
            raise PermissionError(errno.EACCES, "Permission denied", str(name))
        return opened(name, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuse_to_write)
    with hold_lock(path, _refuse) as is_held:
        assert is_held
        assert path.read_text() == "process 1 on elsewhere"
        with pytest.raises(UserError), hold_lock(path, _refuse):
            pass
    assert not path.exists()
    with pytest.raises(PermissionError), hold_lock(path, _refuse):  # a folder not to be written to
        pass


def test_only_what_was_left_of_the_same_thing_is_swept_away(tmp_path):
    left = [tmp_path / ".out.abc.tmp", tmp_path / ".out.file.tmp"]
    kept = [tmp_path / ".other.abc.tmp", tmp_path / "out.tmp", tmp_path / ".out[1].abc.tmp"]
    kept += [tmp_path / ".out.v2.abc.tmp", tmp_path / ".out.csv.abc.tmp"]  # of `out.v2`, `out.csv`
    for folder in (left[0], *kept):
        folder.mkdir()
    left[1].write_text("x")
    with alone_beside(tmp_path / "out"):
        assert not any(path.exists() for path in left)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_temporary_files_are_in_a_folder_that_the_next_process_sweeps_away(temporary):
    (temporary / "shortline-dead.tmp").mkdir()
    (temporary / "shortline-dead.tmp" / "lock").write_text("")
    (temporary / "shortline-of-a-user").mkdir()
    with own_temporary():
        (mine,) = temporary.glob("shortline-*.tmp")
        assert tempfile.mkdtemp().startswith(str(mine))
        with own_temporary():
            assert mine.exists()  # another that lives
    assert [path.name for path in temporary.iterdir()] == ["shortline-of-a-user"]


def test_without_locks_nothing_is_locked_and_nothing_swept(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    living = tmp_path / ".out.abc.tmp"
    living.mkdir()
    with alone_beside(tmp_path / "out"), alone_beside(tmp_path / "out"):
        assert living.exists()


def test_two_processes_ingest_once(tmp_path, capsys, monkeypatch):
    write_corpus(tmp_path / "corpus.parquet", 1_000, num_classes=5)
    monkeypatch.setenv("SHORTLINE_CACHE", str(tmp_path / "cache"))
    calls, begun, made = [], threading.Event(), ingest._ingest

    def ingest_slowly(*args):
        calls.append(args)
        begun.set()
        time.sleep(0.5)
        return made(*args)

    def run(sets=[]):  # noqa: B006
        sets.append(
            ingest.ingest_cached([tmp_path / "corpus.parquet"], IngestConfig(), TokenizerConfig())
        )
        return sets

    monkeypatch.setattr(ingest, "_ingest", ingest_slowly)
    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(20)
    sets = run()
    thread.join()
    assert len(calls) == 1
    assert sets[0].fingerprint == sets[1].fingerprint
    printed = capsys.readouterr().out
    assert f"waiting for process {os.getpid()} on " in printed
    assert printed.count(f"data ingested before, unchanged: {sets[0].folder}") == 1
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [sets[0].folder.name]


def test_two_processes_generate_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SHORTLINE_CACHE", str(tmp_path))
    calls, begun, write = [], threading.Event(), generated.write_corpus

    def write_slowly(*args):
        calls.append(args)
        begun.set()
        time.sleep(0.3)
        write(*args)

    monkeypatch.setattr(generated, "write_corpus", write_slowly)
    thread = threading.Thread(target=generated.generate_cached, args=[1_000])
    thread.start()
    assert begun.wait(20)
    corpus = generated.generate_cached(1_000)
    thread.join()
    assert len(calls) == 1
    assert list(tmp_path.iterdir()) == [corpus]


def test_an_interrupted_ingest_is_swept_away_by_the_next(tmp_path):
    write_corpus(tmp_path / "corpus.parquet", 1_000, num_classes=5)
    (tmp_path / ".shards.gone.tmp" / "work").mkdir(parents=True)
    config = IngestConfig(), TokenizerConfig()
    ingest.ingest([tmp_path / "corpus.parquet"], tmp_path / "shards", *config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.parquet", "shards"]


def test_a_run_folder_is_for_one_process_and_for_readers(tmp_path, small_shards, capsys):
    run = make_run(tmp_path / "run")
    (tmp_path / "texts.csv").write_text("text\nword1 word2\n")
    with hold_run(run.paths.folder):
        for flags in (["--resume", str(run.paths.folder)], ["--out", str(run.paths.folder)]):
            holds = f"process {os.getpid()} on .*, trains this run|holds another run"
            with pytest.raises(UserError, match=holds):
                train.main([*flags, *(["--data", str(small_shards.folder)] * ("--out" in flags))])
        assert predict([str(run.paths.folder), str(tmp_path / "texts.csv")]) == 0
    printed = capsys.readouterr().out
    assert '"word1 word2",' in printed
    assert "generating" not in printed  # it is refused before the data is read
    assert not run.paths.lock.exists()


def test_what_a_killed_run_left_is_swept_away_and_nothing_else(tmp_path):
    paths = RunPaths(tmp_path / "run")
    left = [".config.yaml.x.tmp", ".export.y.tmp/new", "checkpoints/.last.npz.z.tmp"]
    kept = ["predictions.csv", ".predictions.csv.w.tmp", "checkpoints/last.npz"]
    kept.append(".export.v2.y.tmp")
    for name in left + kept:
        (paths.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (paths.folder / name).write_text("x")
    with hold_run(paths.folder):
        pass
    found = {str(path.relative_to(paths.folder)) for path in paths.folder.rglob("*")}
    assert found == {*kept, "checkpoints"}


def test_a_folder_that_a_killed_run_had_only_begun_is_free(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".lock").write_text("process 1 on elsewhere, since long ago")
    (out / ".config.yaml.x.tmp").write_text("hid")
    check_free(out)
    with hold_run(out):
        check_free(out)
    assert not out.exists()  # nothing came of it
