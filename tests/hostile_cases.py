"""The damaged and hostile inputs that docs/hostile-input.md lists, and what is said of each.

`python -m tests.hostile_cases` writes the table of that page anew, from real runs.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz_ingest import run_command_here
from tfdata.config import IngestConfig, TokenizerConfig

PAGE = Path(__file__).parents[1] / "docs" / "hostile-input.md"
_ROWS = "".join(f"the text {i},class {i % 3}\n" for i in range(30))
_CSV = "text,label\n" + _ROWS
_LINE = json.dumps({"text": "a", "label": "b"}) + "\n"
_MIB = 1 << 20


def _parquet(**options: Any) -> bytes:
    rows = {"text": [f"the text {i}" for i in range(300)], "label": list("abc") * 100}
    return _as_parquet(pa.table(rows), **options)


def _as_parquet(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_statistics=False, **options)
    return sink.getvalue().to_pybytes()


def _repeated(text: str, num_rows: int) -> bytes:
    index = pa.array(np.zeros(num_rows, np.int32))
    texts = pa.DictionaryArray.from_arrays(index, pa.array([text]))
    table = pa.table({"text": texts, "label": ["a"] * num_rows})
    return _as_parquet(table, store_schema=False, dictionary_pagesize_limit=64 * _MIB)


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _zipped(text: str | bytes) -> bytes:
    return gzip.compress(text.encode() if isinstance(text, str) else text, mtime=0)


def _checksummed() -> bytes:
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    content = _parquet(**options)
    return _flipped(content, content.index(b"the text 100"))


FILES: Mapping[str, tuple[str, Callable[[], str | bytes], list[str]]] = {
    "a row with a field too many": ("a.csv", lambda: _CSV + "a,b,c\n", []),
    "the same, and not in UTF-8": ("a.csv", lambda: _CSV.encode() + b"a\xff,b,c\n", []),
    "a quote that is never closed": ("a.csv", lambda: 'text,label\na,b\n"a,b\n' + _ROWS * 5, []),
    "a quote that swallows the last rows": ("a.csv", lambda: _CSV + 'a,"b\nc,d\n', []),
    "a line that never ends, in a small .gz": ("a.csv.gz", lambda: _zipped(
        "text,label\n" + "x" * 40 * _MIB), []),
    "a header alone": ("a.csv", lambda: "text,label\n", []),
    "an empty file": ("a.csv", lambda: "", []),
    "columns of other names": ("a.csv", lambda: "a,b\nc,d\n", []),
    "invalid UTF-8 with --strict": ("a.csv", lambda: b"text,label\na,b\n\xff,b\n", ["--strict"]),
    "UTF-16": ("a.csv", lambda: _CSV.encode("utf-16"), []),
    "an Excel or zip file": ("a.csv", lambda: b"PK\x03\x04" + b"\0" * 99, []),
    "a program": ("a.csv", lambda: b"\x7fELF\2\1\1" + b"\0" * 99 + b"\n" + b"\1," * 99, []),
    "a .gz cut short": ("a.csv.gz", lambda: _zipped(_CSV)[:-20], []),
    "a .gz with a flipped bit": ("a.csv.gz", lambda: _flipped(_zipped(_CSV), 100), []),
    "a Parquet file cut short": ("a.parquet", lambda: _parquet()[:-1000], []),
    "a flipped bit in a Parquet page that has a checksum": ("a.parquet", _checksummed, []),
    "a Parquet footer of rubbish": ("a.parquet", lambda: _parquet()[:-60] + b"\xff" * 52 +
        _parquet()[-8:], []),
    "a Parquet column that is no text": ("a.parquet", lambda: _as_parquet(pa.table(
        {"text": [["a"], ["b"]], "label": ["a", "b"]})), []),
    "a Parquet text of 17 MiB": ("a.parquet", lambda: _repeated("x" * 17 * _MIB, 3), []),
    "3 TiB of Parquet texts in 50 KB": ("a.parquet", lambda: _repeated("x" * _MIB, 3 * _MIB), []),
    "a JSON line cut short": ("a.jsonl", lambda: _LINE * 3 + '{"text": "a', []),
    "a JSON line nested 100,000 deep": ("a.jsonl", lambda: _LINE + "[" * 100_000, []),
    "a JSON text that is a list": ("a.jsonl", lambda: _LINE + '{"text": [], "label": "b"}', []),
    "one JSON array": ("a.jsonl", lambda: f"[{_LINE}]", []),
    "a JSON line that never ends": ("a.jsonl.gz", lambda: _zipped('{"text": "' + "x" * 40 * _MIB),
        []),
    "a fastText line without a label": ("a.ft", lambda: "__label__a b\nno label\n", []),
    "a time that is none": ("a.csv", lambda: "text,label,day\na,b,2024-01-31\nc,d,2024-02-31\n",
        ["--split", "time", "--time", "day"]),
    "times as numbers and as dates": ("a.csv", lambda: "text,label,day\na,b,20240131\n" +
        "c,d,2024-02-01\n", ["--split", "time", "--time", "day"]),
    "a column of no times": ("a.csv", lambda: "text,label,day\na,b,\nc,d,\n",
        ["--split", "time", "--time", "day"]),
    "one class alone": ("a.csv", lambda: "text,label\n" + "a,b\nc,b\n" * 9, []),
    "ids for labels": ("a.csv", lambda: "text,label\n" + "".join(
        f"text,id {i}\n" for i in range(99)), []),
    "a terminal escape in a column name": ("a.csv", lambda: "\x1b[2Ja,b\nc,d\n", []),
    "a delimiter that no CSV file has": ("a.csv", lambda: _CSV, ["--delimiter", "é"]),
    "YAML that would run Python": ("a.csv", lambda: _CSV, ["--config", "in.yaml"]),
}  # fmt: skip
"""Name → (file name, its content, flags of tfdata.ingest)."""


def _change_manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        path = folder / "manifest.json"
        manifest = json.loads(path.read_bytes())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return damage


def _point_out(name: str) -> Callable[[Path], Any]:
    return _change_manifest(lambda m: m["parts"]["train"]["shards"][0].update(file=name))


def _link_out(folder: Path) -> None:
    shard = folder / "train-00000.parquet"
    shutil.move(shard, folder.parent / "elsewhere")
    shard.symlink_to("../elsewhere")


def _flip_shard(folder: Path) -> None:
    shard = folder / "train-00000.parquet"
    shard.write_bytes(_flipped(shard.read_bytes(), 50))


SHARDS: Mapping[str, Callable[[Path], Any]] = {
    "a manifest that names ../x": _point_out("../x"),
    "a manifest that names /etc/passwd": _point_out("/etc/passwd"),
    "a shard that is a link out of the folder": _link_out,
    "a shard with a flipped bit": _flip_shard,
    "a shard cut short": lambda folder: os.truncate(folder / "train-00000.parquet", 100),
    "a manifest with other labels": _change_manifest(lambda m: m["labels"].reverse()),
    "a manifest with counts of no kind": _change_manifest(lambda m: m["counts"].update(order=[1])),
    "a manifest cut short": lambda folder: os.truncate(folder / "manifest.json", 100),
}
"""Name → what is done to the folder of a shard set."""


def run_file(name: str) -> tuple[Any, str]:
    """(exit code, message) of ingest; raises AssertionError where it leaves anything behind."""
    from tfdata.ingest import main

    file, content, flags = FILES[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        written = content()
        (folder / file).write_bytes(written.encode() if isinstance(written, str) else written)
        (folder / "in.yaml").write_text(f"text: !!python/object/apply:os.mkdir ['{folder}/ran']")
        flags = [str(folder / flag) if flag == "in.yaml" else flag for flag in flags]
        argv = [str(folder / file), "--out", str(folder / "out"), *flags]
        code, said = run_command_here(lambda: main(argv))
        assert sorted(path.name for path in folder.iterdir()) == sorted([file, "in.yaml"])
        return code, _plain(said, folder)


def run_shards(name: str) -> tuple[Any, str]:
    """(exit code, message) of reading a shard set."""
    from tfdata.ingest import ingest
    from tfdata.shards import open_shards, read_batches

    with tempfile.TemporaryDirectory() as temporary:
        folder, source = Path(temporary, "shards"), Path(temporary, "a.csv")
        source.write_text(_CSV)
        ingest([source], folder, IngestConfig(), TokenizerConfig(vocab_size=50))
        SHARDS[name](folder)
        code, said = run_command_here(lambda: list(read_batches(open_shards(folder), "train")))
        return code, _plain(said, Path(temporary))


def _plain(said: str, folder: Path) -> str:
    """Without the folder, and without words and sizes of libraries: these change with versions."""
    said = said.strip().replace(f"{folder}/", "")
    said = re.sub(r"((?:unreadable|not valid YAML):|cannot be read) .*", r"\1 ...", said)
    return re.sub(r"bytes, not \d+;", "bytes, not ...;", said)


def rows() -> dict[str, Callable[[str], tuple[Any, str]]]:
    """What runs each input of the table."""
    return dict.fromkeys(FILES, run_file) | dict.fromkeys(SHARDS, run_shards)


def build_row(name: str) -> str:
    """One line of the table in Markdown."""
    code, said = rows()[name](name)
    said = said.replace("|", "\\|").replace("`", "'")
    return f"| {name} | `{said}` | {code} |"


def main() -> None:
    head = "| input | what the user sees | exit code |\n|---|---|---|\n"
    before, after = re.split(re.escape(head) + r"(?:\|[^\n]*\n)*", PAGE.read_text("utf-8"))
    PAGE.write_text(before + head + "".join(build_row(n) + "\n" for n in rows()) + after, "utf-8")


if __name__ == "__main__":
    main()
