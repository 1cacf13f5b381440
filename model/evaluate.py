"""How good a run is on labelled documents: `python -m model.evaluate RUN --data FILE`.

Raw files are read as training reads them; of a shard set, one part is scored. The last line of
stdout is JSON. Scores are those of the network in float32, whatever precision trained it, and of
its linear classifier. Unless there were many, both have learned from the run's validation
documents, too: what is new to them is a test part. `loss` is the cross-entropy before the
temperature, as in the summary.json of the run, of the documents whose label the run knows (null
where it knows none); `calibrated_loss`, `ece` and all that goes by probabilities are of the
probabilities that model.predict gives.
Legend: D documents, C classes that the run knows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import tyro

from model.confidence import check_threshold
from shortline import UserError, import_tensorflow, parse_flags, printable, run_command
from tfdata.config import IngestConfig
from tfdata.open_quotes import warn_of_open_quotes
from tfdata.progress import show_progress
from tfdata.raw import ReadCounts
from tfdata.read import Format, list_files, read_documents, read_table_batches
from tfdata.shards import PARTS, is_shard_set, open_shards, read_batches

if TYPE_CHECKING:  # TensorFlow takes seconds to import: wrong flags are answered before that
    from model.answers import Answers
    from model.opened import Run

_CALL_DOCS = 4096

Documents = Iterator[tuple[pa.Array, np.ndarray, float]]
"""Texts string[n], label ids int32[n], and the share of all data that is read by then."""


@dataclass(frozen=True, kw_only=True)
class EvaluateFlags:
    """What can be set."""

    run: tyro.conf.Positional[str]
    """Folder of the run."""
    data: tuple[str, ...]
    """Files of texts and labels, folders of them, or one shard set of tfdata.ingest."""
    part: Literal["train", "valid", "test"] | None = None
    """Part of a shard set (default: test where it has one, else valid)."""
    text: str | None = None
    """Column that holds the text (default: as in training, or guessed)."""
    label: str | None = None
    """Column that holds the label (default: as in training, or guessed)."""
    format: Format = "auto"
    """Format of the files; auto goes by the name, then by the first bytes."""
    delimiter: str | None = None
    """Field separator of CSV files (guessed from the header line)."""
    abstain: float | None = None
    """Also tell how many documents have a probability of this or more, and how many of those are
    right."""
    oos_label: str | None = None
    """Label of documents that are out of scope, of no class (a class of that name may have been
    trained): tells how well they are known from the others."""
    skip_bad_rows: bool = False
    """Skip and count rows that do not parse, instead of stopping at the first."""
    gpus: str = "all"
    """all (or the CPU where there is none), a number, GPUs like 0,2, or none; only the first of
    them is used."""

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("--data: name at least one file")
        check_threshold(self.abstain)


def main(argv: Sequence[str] | None = None) -> int:
    description = "Score a trained run on labelled documents."
    prog = "python -m model.evaluate"
    flags = parse_flags(EvaluateFlags, argv, prog=prog, description=description)
    paths = [Path(name) for name in flags.data]
    is_shards = any(map(is_shard_set, paths))
    files: list[Path] = []
    if is_shards and len(paths) > 1:
        raise UserError(f"--data {' '.join(flags.data)}: a shard set must be the only data")
    if not is_shards:
        if flags.part is not None:
            raise UserError(f"--part {flags.part}: only a shard set has parts, {paths[0]} is none")
        files = [file for path in paths for file in list_files(path, flags.format)]
    import_tensorflow()
    from model.answers import measure_probabilities, measure_scope
    from model.devices import choose_devices
    from model.finish import describe_scores
    from model.opened import open_to_ask
    from model.scores import score, worst_confusions

    run = open_to_ask(Path(flags.run))
    devices = choose_devices(flags.gpus)
    if flags.gpus == "all" and not devices.has_gpu:
        print("no GPU found: evaluating on the CPU")
    ids = LabelIds(run.labels)
    counts = ReadCounts()
    part = None
    if is_shards:
        part = choose_part(paths[0], flags.part)
        print(f"the {part} part of {printable(str(paths[0]))}:")
        documents = read_part(paths[0], part, ids)
    else:
        documents = read_labelled(paths, ingest_config(flags, run, files[0]), ids, counts)
    out_id = None if flags.oos_label is None else int(ids.of([flags.oos_label])[0])
    answers = predict_labelled(run, documents, devices.has_gpu, out_id)
    predictions = answers.predictions
    # labels.txt has the biggest class first, and of the counts the thirds need only the order
    scores = score(predictions, np.arange(len(run.labels), 0, -1))
    confusions = worst_confusions(predictions, len(run.labels))
    print(describe_scores(scores, confusions, ids.names))
    if part in ("train", "valid") and (run.linear is not None or run.refit is not None):
        print(
            f"  a run that was trained with this shard set may have learned from its {part} part: "
            "only a test part tells about new texts"
        )
    for path in find_learned(run, paths):
        print(
            f"  this run has learned from {printable(str(path))}, or from a part of it: only other "
            "texts tell about new ones"
        )
    num_dropped = counts.rows_read - counts.rows_kept
    if num_dropped:
        rows = "row was" if num_dropped == 1 else "rows were"
        print(f"  {num_dropped:,} {rows} left out: without a text or a label, or not readable")
    if counts.open_quotes:
        print(f"  {warn_of_open_quotes(counts.open_quotes)}")
    left_out = {"num_dropped": num_dropped, "open_quotes": len(counts.open_quotes)}
    figures = {"temperature": run.calibration.temperature}
    figures |= measure_probabilities(answers, len(run.labels), flags.abstain)
    if out_id is not None:
        figures |= measure_scope(answers, len(run.labels), out_id, flags.oos_label or "")
    print(json.dumps({**scores.summary(), **figures, **left_out, "run": flags.run}))
    return 0


class LabelIds:
    """Ids of labels: the run's, and from C on one for each other label, by first sight."""

    def __init__(self, labels: Sequence[str]):
        self._id_of = {label: number for number, label in enumerate(labels)}

    @property
    def names(self) -> list[str]:
        """The labels by id."""
        return list(self._id_of)

    def of(self, labels: Sequence[str]) -> np.ndarray:
        """Their ids int32[n]."""
        ids = self._id_of
        return np.array([ids.setdefault(label, len(ids)) for label in labels], np.int32)


def find_learned(run: Run, paths: Sequence[Path]) -> list[Path]:
    """Those of the files that trained the run, or validated it and then trained it, too."""
    names = run.settings.get("data") or ()
    learned = {os.path.abspath(name) for name in names if isinstance(name, str)}
    valid = run.settings.get("valid")
    if isinstance(valid, str) and (run.linear is not None or run.refit is not None):
        learned.add(os.path.abspath(valid))
    return [path for path in paths if path.is_file() and os.path.abspath(path) in learned]


def ingest_config(flags: EvaluateFlags, run: Run, path: Path) -> IngestConfig:
    """How to read: as the flags say; where they are mute, the columns of the training if the file
    `path` has them, else what their names say.
    """
    names, _ = read_table_batches(path, flags.format, flags.delimiter, flags.skip_bad_rows)
    text, label = (
        asked or (trained if (trained := run.settings.get(name)) in names else None)
        for name, asked in (("text", flags.text), ("label", flags.label))
    )
    return IngestConfig(
        text=text, label=label,
        format=flags.format, delimiter=flags.delimiter, skip_bad_rows=flags.skip_bad_rows,
    )  # fmt: skip


def read_labelled(
    paths: Sequence[Path], config: IngestConfig, ids: LabelIds, counts: ReadCounts
) -> Documents:
    """The documents of raw files; `counts` says what was left out.

    Raises:
      UserError: a file cannot be read as documents.
    """
    files = [file for path in paths for file in list_files(path, config.format)]
    num_bytes = max(1, sum(file.stat().st_size for file in files))
    for path in paths:
        for batch in read_documents(path, config, counts):
            labels = batch.column("label").dictionary_encode()
            known = ids.of(labels.dictionary.to_pylist())
            share = counts.bytes_read / num_bytes
            yield batch.column("text"), known[labels.indices.to_numpy()], share


def choose_part(folder: Path, part: str | None) -> str:
    """`part`, or where it is None, test, or valid.

    Raises:
      UserError: the part has no documents.
    """
    shard_set = open_shards(folder)
    held = [name for name in PARTS if shard_set.num_docs(name)]
    part = part or ("test" if "test" in held else "valid")
    if part not in held:
        raise UserError(f"{folder}: has no {part} documents; choose --part {' or '.join(held)}")
    return part


def read_part(folder: Path, part: str, ids: LabelIds) -> Documents:
    """The documents of one part of a shard set, its labels matched by name.

    Raises:
      UserError: a shard is damaged.
    """
    shard_set = open_shards(folder)
    known = ids.of([*shard_set.labels, *shard_set.unseen_labels])
    num_docs = 0
    for texts, labels in read_batches(shard_set, part):
        num_docs += len(texts)
        yield texts, known[labels], num_docs / shard_set.num_docs(part)


def predict_labelled(
    run: Run, documents: Documents, has_gpu: bool, out_id: int | None = None
) -> Answers:
    """Predictions and losses of all documents, in order.

    Args:
      out_id: of the label of documents out of scope.
    """
    import tensorflow as tf

    from model.answers import Answers
    from model.infer import build_infer, docs_per_call, map_ahead
    from model.losses import cross_entropy
    from model.scope import energy, log_odds
    from model.step import Predictions

    infer = build_infer(run, has_gpu)
    most = docs_per_call(run, _CALL_DOCS)
    temperature = run.calibration.temperature
    class_id = None if out_id is None or out_id >= len(run.labels) else out_id

    def pieces() -> Documents:
        for texts, labels, share in documents:
            for start in range(0, len(texts), most):
                yield texts.slice(start, most), labels[start : start + most], share

    def predict(piece: tuple[pa.Array, np.ndarray, float]) -> tuple[list[np.ndarray], float]:
        texts, labels, share = piece
        logits = infer(texts)
        scaled = logits / temperature
        values = (
            tf.argmax(logits, axis=1, output_type=tf.int32),
            tf.reduce_max(tf.nn.softmax(scaled), axis=1),
            cross_entropy(logits, tf.constant(labels)),
            cross_entropy(scaled, tf.constant(labels)),
            energy(logits, temperature),
            tf.zeros(len(labels)) if class_id is None else log_odds(scaled, class_id),
        )
        return [labels, *(value.numpy() for value in values)], share

    results: list[list[np.ndarray]] = []
    num_docs = 0
    with show_progress("evaluating") as update:
        for result, share in map_ahead(predict, pieces()):
            results.append(result)
            num_docs += len(result[0])
            update(num_docs, share)
    if not results:
        raise UserError("--data: no document has both a text and a label; check --text and --label")
    columns = [np.concatenate(parts) for parts in zip(*results, strict=True)]
    return Answers(Predictions(*columns[:4]), *columns[4:])


if __name__ == "__main__":
    run_command(main)
