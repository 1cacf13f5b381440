"""What a run leaves behind while it goes on: metrics.jsonl, and TensorBoard's event files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.summary_pb2 import SummaryMetadata

from shortline import write_whole


class MetricsLog:
    """Appends events, each a JSON object with its `step`, and the scalars to TensorBoard."""

    def __init__(self, path: Path, tensorboard: Path, after_step: int):
        """Events later than `after_step` are dropped: a resumed run makes them again."""
        kept = [event for event in read_events(path) if event["step"] <= after_step]
        with write_whole(path) as file:
            file.writelines(json.dumps(event) + "\n" for event in kept)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115, closed by close()
        self._writer = tf.summary.create_file_writer(str(tensorboard))

    def log(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({"event": event, "step": step, **values}) + "\n")
        self._file.flush()
        metadata = SummaryMetadata(
            plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"), data_class=1
        )
        # numpy's numbers: of each Python number it is given, TensorFlow keeps a tensor for good
        at = tf.constant(np.int64(step))
        with self._writer.as_default():
            for name, value in values.items():
                if isinstance(value, float):
                    # tf.summary.scalar would need the package tensorboard to write, not to look
                    scalar = tf.constant(np.float32(value))
                    tf.summary.write(f"{event}/{name}", scalar, at, metadata)

    def close(self) -> None:
        self._file.close()
        self._writer.close()


class SilentLog(MetricsLog):
    """In the place of a `MetricsLog`, where another process writes it."""

    def __init__(self):
        pass

    def log(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a metrics.jsonl, in order; none where there is no such file."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text("utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:  # the last line of a run that was killed while writing it
            continue
    return events
