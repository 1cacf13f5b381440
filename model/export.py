"""A trained classifier as a SavedModel: `python -m model.export RUN --out DIR`.

It takes texts as they are and loads wherever TensorFlow is installed, GPU or not: the reference
LSTM is exported, since a graph with cuDNN's would load beside a GPU alone.
Legend: B texts, C classes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from shortline import UserError, __version__, import_tensorflow, parse_flags, printable, run_command

if TYPE_CHECKING:
    from model.opened import Run

README = "README.txt"


@dataclass(frozen=True, kw_only=True)
class ExportFlags:
    """What can be set."""

    run: tyro.conf.Positional[str]
    """Folder of the run."""
    out: str
    """Folder to write the SavedModel to; it must be new or empty."""


def main(argv: Sequence[str] | None = None) -> int:
    description = "Write a run's best classifier as a SavedModel."
    flags = parse_flags(ExportFlags, argv, prog="python -m model.export", description=description)
    out = Path(flags.out)
    _check_free(out)
    import_tensorflow()
    from model.opened import open_to_ask

    run = open_to_ask(Path(flags.run))
    export_run(run, out)
    print((out / README).read_text("utf-8"), end="")
    print(f"export   {printable(str(out))}")
    return 0


def export_run(run: Run, out: Path, replace: bool = False) -> None:
    """Writes the SavedModel, a README.txt and labels.txt to the folder `out`, whole or not at all.

    Its `serving_default` takes `text` string[B] and gives `label` string[B], `probability`
    float32[B] and `probabilities` float32[B, C], the classes in the order of labels.txt. It may be
    called under any strategy's scope.

    Args:
      replace: puts it in the place of what is there, as a resumed run must.

    Raises:
      UserError: `out` is not empty (without `replace`), or the run's files are damaged.
    """
    if not replace:
        _check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = {"prefix": f".{out.name}.", "suffix": ".tmp", "dir": out.parent}
    with tempfile.TemporaryDirectory(**beside) as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        new.mkdir()
        # a thread of its own has no strategy scope: there, variables would be mirrored
        with ThreadPoolExecutor(1) as outside:
            outside.submit(_save, run, new).result()
        shutil.copyfile(run.paths.labels, new / "labels.txt")
        (new / README).write_text(_describe(run), "utf-8")
        with contextlib.suppress(FileNotFoundError):
            os.rename(out, old)
        os.rename(new, out)


def _check_free(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; name a folder")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out}: is not empty; choose another folder, or delete it")


def _save(run: Run, folder: Path) -> None:
    import tensorflow as tf

    encode = run.build_encoder()
    with tf.device("CPU"):
        classifier = run.build_classifier("keras")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def serve(text):
        from tfdata.encode import pad

        ids, lengths = encode(text)
        token_ids = pad(ids, lengths)
        width = tf.maximum(
            1, tf.shape(token_ids)[1]
        )  # without texts it is 0, too short for an LSTM
        token_ids = tf.pad(token_ids, tf.stack([[0, 0], [0, width - tf.shape(token_ids)[1]]]))
        logits = classifier.call(token_ids, lengths)
        probabilities = tf.nn.softmax(logits / run.calibration.temperature)
        best = tf.argmax(probabilities, axis=1)
        return {
            "label": tf.gather(tf.constant(run.labels), best),
            "probability": tf.reduce_max(probabilities, axis=1),
            "probabilities": probabilities,
        }

    module = tf.Module()
    # the weights alone: a Keras layer would bring its own, useless, functions along
    networks = [one for one in (classifier, classifier.twin) if one is not None]
    module.weights = [weight for one in networks for weight in one.state_by_name.values()]
    module.linear = classifier.linear
    module.encode = encode
    module.serve = serve
    try:
        tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    except tf.errors.ResourceExhaustedError as error:  # a full disk, in TensorFlow's words
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error


def _describe(run: Run) -> str:
    needs_text = run.tokenizer.tokenizer == "wordpiece" or run.tokenizer.nfkc
    lines = [
        f"A text classifier of {len(run.labels):,} classes, written by shortline {__version__} as "
        "a TensorFlow SavedModel.",
        "serving_default: text string[B] -> label string[B], probability float32[B], "
        f"probabilities float32[B, {len(run.labels)}]",
        "labels.txt holds the labels in the order of `probabilities`, one a line, with \\\\, \\n "
        "and \\r for a backslash, a newline and a carriage return.",
    ]
    if needs_text:
        why = "wordpiece tokens" if run.tokenizer.tokenizer == "wordpiece" else "Unicode's NFKC"
        lines.append(
            f"It needs tensorflow-text, for {why}: `import tensorflow_text` before "
            "tf.saved_model.load. (TensorFlow Serving's own binary lacks its ops; a run with "
            "`--tokenizer word --no-nfkc` needs TensorFlow alone.)"
        )
    else:
        lines.append("It needs TensorFlow alone: tf.saved_model.load(FOLDER) and call "
                     'signatures["serving_default"](text=...), or serve(texts).')  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_command(main)
