"""A run that is opened to be used: how a trained classifier is put together from its folder.

A trained classifier is a network and the encoder that feeds it.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from model.calibration import Calibration, read_calibration, write_calibration
from model.checkpoint import load_best, restore
from model.classifier import Classifier
from model.config import ModelConfig
from model.linear import LinearPath, LinearWeights, read_linear, write_linear
from model.run import RunPaths
from model.words import WordParts
from shortline import UserError, printable
from tfdata.config import TokenizerConfig
from tfdata.encode import Encoder
from tfdata.subwords import hash_pieces, place_stems
from tfdata.vocab import Vocabulary, read_lines

_BEFORE = {"stems": 0, "pieces": 0, "pairs": 0, "bag": False, "unspaced": "keep"}
"""What runs were like whose config.yaml does not have these."""


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
    linear: LinearWeights | None
    """What its decision values add to the logits; None: nothing."""
    refit: Mapping[str, np.ndarray] | None = None
    """Weights by name, of a network that was trained with the validation documents, too: its logits
    and those of the best epoch are averaged; None: there is none."""

    @property
    def max_len(self) -> int:
        assert self.tokenizer.max_len is not None  # a run writes the one it settled on
        return self.tokenizer.max_len

    def build_encoder(self) -> Encoder:
        return Encoder(self.tokenizer, self.vocabulary, self.max_len)

    def build_classifier(self, route: str, precision: str = "float32") -> Classifier:
        """The network that answers, which learns no more."""
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
        restore(classifier.state_by_name, arrays, self.paths.best)
        self.shift(classifier)
        classifier.words.fold()
        if self.refit is not None:
            twin = classifier.add_twin()
            restore(twin.state_by_name, self.refit, self.paths.final)
            self.shift(twin)
            twin.words.fold()
        if self.linear is not None:
            classifier.linear = LinearPath(self.linear)
        return classifier

    def shift(self, classifier: Classifier) -> None:
        """Has rare classes count as the calibration says (model.longtail)."""
        shift = self.calibration.logit_shift
        if shift and len(shift) != len(self.labels):
            raise UserError(
                f"{self.paths.calibration}: damaged: {len(shift)} numbers in logit_shift, "
                f"{len(self.labels)} labels"
            )
        if shift:
            classifier.dense.bias.value.assign_add(shift)


def describe_words(
    vocabulary: Vocabulary, tokenizer: TokenizerConfig, config: ModelConfig
) -> WordParts | None:
    """Stems and pieces of the vocabulary's words, as far as the settings want them."""
    if tokenizer.tokenizer != "word" or not (tokenizer.stem_characters or config.pieces):
        return None
    entries = vocabulary.entries
    return WordParts(
        place_stems(entries, tokenizer.stem_characters),
        hash_pieces(entries, vocabulary.first_word_id, config.pieces, tokenizer.unspaced),
    )


def open_run(folder: Path, is_finished: bool = True) -> Run:
    """Opens the folder of a run.

    Args:
      is_finished: False: the network as trained, without what came after its training.

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
    calibration = read_calibration(paths.calibration) if is_finished else Calibration()
    linear = None
    if calibration.has_linear:
        linear = read_linear(paths.linear, len(labels), len(vocabulary))
    if calibration.has_linear and linear is None:
        raise UserError(
            f"{paths.linear}: is missing; restore it, or make it again: python train.py --resume "
            f"{printable(str(folder))}"
        )
    refit = None
    if calibration.has_refit:
        try:
            refit, _ = load_best(paths.final)
        except UserError:
            what = "damaged" if paths.final.exists() else "missing"
            again = f"python train.py --resume {printable(str(folder))}"
            raise UserError(
                f"{paths.final}: {what}, and so is its copy; to train that network again: {again}; "
                "to do without it, add --refit none to that"
            ) from None
    return Run(paths, settings, labels, vocabulary, tokenizer, model, calibration, linear, refit)


def open_to_ask(folder: Path) -> Run:
    """`open_run`, and a word on stderr about a run whose end has not been yet.

    Raises:
      UserError: as it does.
    """
    run = open_run(folder)
    if not run.paths.calibration.exists():
        name = printable(str(folder))
        print(
            f"{name} is not finished: this is its best epoch so far, with probabilities that are "
            f"not calibrated; to finish it: python train.py --resume {name}", file=sys.stderr,
        )  # fmt: skip
    return run


def keep_answers(run: Run) -> None:
    """Writes its calibration and its linear classifier; the network of a refit is there already.

    Whenever this ends, `open_run` finds a classifier where the calibration asks for one.
    """
    calibration = dataclasses.replace(
        run.calibration, has_linear=run.linear is not None, has_refit=run.refit is not None
    )
    if run.linear is not None:
        write_linear(run.paths.linear, run.linear)
    write_calibration(run.paths.calibration, calibration)
    if run.linear is None:
        run.paths.linear.unlink(missing_ok=True)


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
