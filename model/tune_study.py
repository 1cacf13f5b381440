"""The study of --tune on disk: optuna's, in a journal of JSON lines."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from shortline import UserError, write_whole
from tfdata.lock import sweep

if TYPE_CHECKING:
    from optuna import Study


def open_study(journal: Path, seed: int) -> Study:
    """The study that is there, or a new one.

    Raises:
      UserError: the journal is damaged.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if journal.exists():
        _mend(journal)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = JournalStorage(JournalFileBackend(str(journal)))
        study = optuna.create_study(
            study_name="tune", direction="maximize", storage=storage, load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=2),
        )  # fmt: skip
        # a search that goes on must not draw the same again
        seed = seed + len(study.trials)
        study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=5)
    return study


def _mend(journal: Path) -> None:
    """Drops what a killed process has left of it: half a line, and a lock.

    Raises:
      UserError: another line is damaged.
    """
    sweep(journal.parent.glob(f"{journal.name}.*"))
    lines = journal.read_bytes().split(b"\n")
    if lines[-1]:
        with write_whole(journal, "wb") as file:
            file.write(b"".join(line + b"\n" for line in lines[:-1]))
    for number, line in enumerate(lines[:-1], start=1):
        try:
            json.loads(line)
        except ValueError:
            raise UserError(f"{journal}: line {number} is damaged; start a new run") from None
