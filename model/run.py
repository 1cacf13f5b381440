"""A run's folder: what is in it, and how a trained classifier is put together from it.

With the commands predict, evaluate and export, this is the one place in `model` that knows
`tfdata`: a trained classifier is a network and the encoder that feeds it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
import yaml

from model.calibration import Calibration, read_calibration
from model.checkpoint import load_best, load_newest, restore
from model.classifier import Classifier
from model.config import ModelConfig
from model.events import read_events
from model.origin import compare
from model.words import WordParts
from shortline import UserError, printable, write_whole
from tfdata.config import TokenizerConfig
from tfdata.encode import Encoder
from tfdata.lock import find_holder, find_temporary, hold_lock, sweep
from tfdata.subwords import hash_pieces, place_stems
from tfdata.vocab import Vocabulary, read_lines, write_lines

_STEPS_OF_ROWS = "adam_steps_of_rows"
"""Variables of model.lazy_rows, one a table. Older checkpoints have one, the embedding's; those of
before there were lazy rows have none: all rows had been moved at every step."""
_BEFORE = {"stems": 0, "pieces": 0, "pairs": 0, "bag": False}
"""What runs were like whose config.yaml does not have these."""


@dataclass(frozen=True)
class RunPaths:
    """Where the parts of a run are."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.json"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def calibration(self) -> Path:
        return self.folder / "calibration.json"

    @property
    def labels(self) -> Path:
        return self.folder / "labels.txt"

    @property
    def vocabulary(self) -> Path:
        return self.folder / "vocab.txt"

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints" / "last.npz"

    @property
    def best(self) -> Path:
        return self.folder / "checkpoints" / "best.npz"

    @property
    def export(self) -> Path:
        return self.folder / "export"

    @property
    def tensorboard(self) -> Path:
        return self.folder / "tensorboard"

    @property
    def tune(self) -> Path:
        """Folder of --tune: what it tried before this training."""
        return self.folder / "tune"

    @property
    def lock(self) -> Path:
        return self.folder / ".lock"

    def find_leftovers(self) -> list[Path]:
        """Temporary files and folders of this run's processes, of which one at most is alive."""
        written = (
            self.config, self.metrics, self.summary, self.report, self.labels, self.vocabulary,
            self.export, self.calibration,
        )  # fmt: skip
        found = [leftover for path in written for leftover in find_temporary(path)]
        return [*found, *self.last.parent.glob(".*.tmp")]


class InTheWay(UserError):
    """A new run's folder is not free: what is there is not this run's."""


@contextlib.contextmanager
def hold_run(folder: Path) -> Iterator[RunPaths]:
    """The run's folder, made if it is not there, for this process alone within the block.

    What a killed process has left unfinished in it is swept away.

    Raises:
      UserError: another process has it.
    """

    def refuse(holder: str) -> None:
        raise UserError(
            f"{folder}: {holder}, trains this run; stop that, wait for it, or choose another --out"
        )

    paths = RunPaths(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with hold_lock(paths.lock, refuse) as is_alone:
            if is_alone:
                sweep(paths.find_leftovers())
            yield paths
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # where nothing came of it


def create_run(
    folder: Path, settings: Mapping[str, Any], labels: tuple[str, ...], vocabulary: Vocabulary
) -> RunPaths:
    """Makes the folder and writes config.yaml, labels.txt and vocab.txt.

    Raises:
      InTheWay: the folder holds something already.
    """
    check_free(folder)
    paths = RunPaths(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with write_whole(paths.config) as file:  # first: from now on the run can be resumed
        yaml.safe_dump(dict(settings), file, sort_keys=False, allow_unicode=True)
    complete_run(paths, labels, vocabulary)
    return paths


def complete_run(paths: RunPaths, labels: tuple[str, ...], vocabulary: Vocabulary) -> None:
    """Writes labels.txt and vocab.txt where they are missing.

    Raises:
      UserError: one is there and says otherwise.
    """
    for path, lines in ((paths.labels, labels), (paths.vocabulary, vocabulary.entries)):
        if not path.exists():
            write_lines(path, lines)
            continue
        found = read_lines(path)
        if found != list(lines):
            pairs = enumerate(itertools.zip_longest(found, lines), 1)
            number, (ours, theirs) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
            raise UserError(
                f"{path}: line {number} is {_quote(ours)}, the data gives {_quote(theirs)}; "
                "restore the file or the data, or start a new run"
            )


def _quote(line: str | None) -> str:
    return "missing" if line is None else f"`{printable(line, 40)}`"


def check_free(folder: Path) -> None:
    """Raises InTheWay if a run, at work or not, or anything else, is where a new run is to be."""
    if folder.exists() and not folder.is_dir():
        raise InTheWay(f"--out {folder}: is a file; name a folder")
    parent = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    if not os.access(parent, os.W_OK):
        raise InTheWay(f"--out {folder}: {parent} is not to be written to; choose another folder")
    paths = RunPaths(folder)
    holder = find_holder(paths.lock)
    if holder is not None:
        raise InTheWay(f"--out {folder}: {holder}, trains a run there; choose another folder")
    free = {paths.lock, paths.tune, *paths.find_leftovers()}
    if folder.is_dir() and {*folder.iterdir()} - free:
        what = "another run" if paths.config.exists() else "other files"
        raise InTheWay(
            f"--out {folder}: holds {what}; choose another folder, delete it, "
            f"or go on with --resume {folder}"
        )


def discard_run(paths: RunPaths) -> None:
    """Deletes what a run makes, and nothing else, of one that has come to nothing."""
    made = (
        paths.config, paths.labels, paths.vocabulary, paths.metrics, paths.summary, paths.report,
        paths.last.parent, paths.tensorboard, paths.export, paths.calibration,
    )  # fmt: skip
    sweep([*made, *paths.find_leftovers()])


def restore_last(
    paths: RunPaths, variables: Mapping[str, tf.Variable], origin: Mapping[str, Any]
) -> dict[str, Any]:
    """Sets the variables to the run's newest whole checkpoint; returns the state saved with it.

    Args:
      origin: of model.origin, what the run is to go on with.

    Raises:
      UserError: all checkpoints are damaged, or of other data, settings or another network.
    """
    arrays, state = load_newest(paths.last)
    data = {"fingerprint": state.pop("fingerprint", None)}  # all that older checkpoints tell
    then = state.pop("origin", {"data": data, "settings": {}, "machine": {}})
    compare(paths.folder, then, origin)
    older = arrays.get(_STEPS_OF_ROWS)
    if older is not None:
        arrays[f"{_STEPS_OF_ROWS}/embedding"] = older
    for name, variable in variables.items():
        if name.startswith(_STEPS_OF_ROWS):  # as new, it says that no row has steps to make up for
            arrays.setdefault(name, variable.numpy())
    restore(variables, arrays, paths.last)
    if "best_macro_f1" in state:  # of when macro-F1 alone chose the best epoch
        state["best_score"] = _find_score(paths, state["best_epoch"], state.pop("best_macro_f1"))
    return state


def _find_score(paths: RunPaths, epoch: int, otherwise: float) -> float:
    """The mean of validation accuracy and macro-F1 of an epoch, as the run has logged it."""
    for event in read_events(paths.metrics):
        if event["event"] == "epoch" and event["epoch"] == epoch and "valid_accuracy" in event:
            return (event["valid_accuracy"] + event["valid_macro_f1"]) / 2
    return otherwise


@dataclass(frozen=True)
class Run:
    """A finished or interrupted run, opened to be used."""

    paths: RunPaths
    settings: dict[str, Any]
    labels: tuple[str, ...]
    vocabulary: Vocabulary
    tokenizer: TokenizerConfig
    model: ModelConfig
    calibration: Calibration

    @property
    def max_len(self) -> int:
        assert self.tokenizer.max_len is not None  # a run writes the one it settled on
        return self.tokenizer.max_len

    def build_encoder(self) -> Encoder:
        return Encoder(self.tokenizer, self.vocabulary, self.max_len)

    def build_classifier(self, route: str, precision: str = "float32") -> Classifier:
        """The network with the best weights, which learns no more."""
        classifier = Classifier(
            self.model,
            vocab_size=len(self.vocabulary),
            num_classes=len(self.labels),
            unknown_id=self.vocabulary.unknown_id,
            route=route,
            precision=precision,
            parts=describe_words(self.vocabulary, self.tokenizer, self.model),
        )
        arrays, _ = load_best(self.paths.best)
        restore(classifier.weights_by_name, arrays, self.paths.best)
        if shift := self.calibration.logit_shift:
            if len(shift) != len(self.labels):
                raise UserError(
                    f"{self.paths.calibration}: damaged: {len(shift)} numbers in logit_shift, "
                    f"{len(self.labels)} labels"
                )
            classifier.dense.bias.value.assign_add(shift)
        classifier.words.fold()
        return classifier


def describe_words(
    vocabulary: Vocabulary, tokenizer: TokenizerConfig, config: ModelConfig
) -> WordParts | None:
    """Stems and pieces of the vocabulary's words, as far as the settings want them."""
    if tokenizer.tokenizer != "word" or not (tokenizer.stem_characters or config.pieces):
        return None
    entries = vocabulary.entries
    return WordParts(
        place_stems(entries, tokenizer.stem_characters),
        hash_pieces(entries, vocabulary.first_word_id, config.pieces),
    )


def open_run(folder: Path, is_calibrated: bool = True) -> Run:
    """Opens the folder of a run.

    Args:
      is_calibrated: False: as the network answers by itself.

    Raises:
      UserError: it is not one, or a file in it is damaged.
    """
    paths = RunPaths(folder)
    try:
        settings = _BEFORE | yaml.safe_load(paths.config.read_text("utf-8"))
        tokenizer = _pick(TokenizerConfig, settings)
        model = _pick(ModelConfig, settings)
    except FileNotFoundError:
        raise UserError(f"{folder}: not the folder of a run: it has no config.yaml") from None
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{paths.config}: damaged: {error}") from None
    if tokenizer.max_len is None:
        raise UserError(f"{paths.config}: damaged: max_len is missing")
    vocabulary = Vocabulary.load(paths.vocabulary, tokenizer)
    labels = tuple(read_lines(paths.labels))
    calibration = read_calibration(paths.calibration) if is_calibrated else Calibration()
    return Run(paths, settings, labels, vocabulary, tokenizer, model, calibration)


def _pick(config_type: type, settings: Mapping[str, Any]):
    """Raises a ValueError naming a setting that is of another kind."""
    kinds = typing.get_type_hints(config_type)
    picked = {name: settings[name] for name in kinds if name in settings}
    for name, value in picked.items():
        if not _fits(value, kinds[name]):
            raise ValueError(f"{name}: {printable(str(value), 40)}")
    return config_type(**picked)


def _fits(value: Any, kind: Any) -> bool:
    """Whether it is of this kind: int, float, bool, str, None, a Literal, or one of several.

    >>> _fits(2, float), _fits(2.0, int), _fits(None, int | None)
    (True, False, True)
    """
    several = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return value in several
    if several:
        return any(_fits(value, one) for one in several)
    return type(value) in ((int, float) if kind is float else (kind,))
