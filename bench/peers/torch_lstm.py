"""The seed's network in PyTorch, as a good engineer would write it for this task.

    python -m bench.peers.torch_lstm SHARDS --epochs 5

All token ids live on the device, where each epoch's order is drawn and its batches are gathered;
nothing is fetched from it before the epoch's end. One `nn.LSTM` of two layers (cuDNN on a GPU,
oneDNN on a CPU), padded on the right and read at each text's last token, so that no lengths reach
the kernel; fused Adam, TF32 and, if asked, autocast. Initial weights are drawn as Keras draws them.
Batches are not sorted by length: with 37 words in 40 columns on a CPU, sorting eight together gave
10 % more documents a second, and less accuracy after the first epoch.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.peers.corpus import VOCAB_SIZE, Split, Tokens, encode, read_split
from bench.peers.flags import PeerFlags, Precision, import_peer
from bench.peers.record import Record
from shortline import parse_flags, run_command

_VALID_BATCH = 1024


@dataclass(frozen=True, kw_only=True)
class TorchFlags(PeerFlags):
    """The flags of this command."""

    precision: Precision = "float32"
    """mixed: autocast, and with float16 a scaled loss."""
    torch_threads: int | None = None
    """Of a CPU (default: PyTorch's own choice). They wait for each other in busy loops: where
    others use the machine, all of its cores can be slower than one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.torch_threads is not None and self.torch_threads < 1:
            raise ValueError(f"--torch-threads {self.torch_threads}: must be 1 or more")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    flags = parse_flags(
        TorchFlags, argv, prog="python -m bench.peers.torch_lstm",
        description="Train the seed's network in PyTorch on a shard set.",
    )  # fmt: skip
    torch = import_peer("torch")
    if flags.torch_threads is not None:
        torch.set_num_threads(flags.torch_threads)
    torch.manual_seed(flags.seed)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    split = read_split(flags.shards)
    train, valid = encode(split.train_texts, split.valid_texts)
    layers, forward = _build_network(torch, split.num_classes, device)
    run_epoch = _build_training(torch, layers, forward, train, split, flags, device)
    predict = _build_predict(torch, layers, forward, valid, flags, device)
    on_cpu = f"CPU, {torch.get_num_threads()} threads"
    record = Record(
        "torch", split, num_epochs=flags.epochs, batch_size=flags.batch_size,
        device=torch.cuda.get_device_name() if device.type == "cuda" else on_cpu,
        versions={"torch": str(torch.__version__)},
    )  # fmt: skip
    for _ in range(flags.epochs):
        started = time.perf_counter()
        run_epoch()
        seconds = time.perf_counter() - started
        record.add_epoch(seconds, predict())
    record.finish()


def _build_network(torch: Any, num_classes: int, device: Any) -> tuple[Any, Callable]:
    """The layers, and `forward(ids[B, T], last[B])`, which gives logits [B, C]."""
    nn = torch.nn
    layers = nn.ModuleDict(
        {
            "embedding": nn.Embedding(VOCAB_SIZE, 50),
            "lstm": nn.LSTM(50, 40, num_layers=2, dropout=0.5, batch_first=True),
            "dropout": nn.Dropout(0.5),
            "dense": nn.Linear(40, num_classes),
        }
    )
    _draw_weights(torch, layers)
    layers.to(device)

    def forward(ids, last):
        states, _ = layers["lstm"](layers["embedding"](ids))
        # right padding: what follows a text's last token does not reach its state
        state = states[torch.arange(len(last), device=device), last]
        return layers["dense"](layers["dropout"](state))

    return layers, forward


def _draw_weights(torch: Any, layers: Any) -> None:
    """As Keras does: recurrent kernels orthogonal, forget gates open, a small embedding."""
    init = torch.nn.init
    for name, weight in layers.named_parameters():
        if name == "embedding.weight":
            init.uniform_(weight, -0.05, 0.05)
        elif "weight_hh" in name:
            init.orthogonal_(weight)
        elif "weight" in name:
            init.xavier_uniform_(weight)
        else:
            init.zeros_(weight)
        if "bias_ih" in name:  # gates in the order input, forget, cell, output
            init.ones_(weight[40:80])


def _build_training(
    torch: Any, layers: Any, forward: Callable, train: Tokens, split: Split, flags: TorchFlags,
    device: Any,
) -> Callable[[], None]:  # fmt: skip
    """`run()` trains on every document once, and waits for the device.

    Kernels are chosen and loaded at a first step, which is made here and undone.
    """
    ids, last = _to_device(torch, train, device)
    labels = torch.from_numpy(split.train_labels.astype(np.int64)).to(device)
    weights = torch.from_numpy(split.class_weights).to(device)
    optimizer = torch.optim.Adam(  # epsilon as Keras's
        layers.parameters(), flags.learning_rate, eps=1e-7, fused=True
    )
    scaler = torch.amp.GradScaler(device.type, enabled=flags.precision == "mixed_float16")
    cross_entropy = torch.nn.functional.cross_entropy

    def train_on(rows: Any) -> None:
        with _autocast(torch, flags.precision, device):
            logits = forward(ids[rows], last[rows])
        total = cross_entropy(logits.float(), labels[rows], weights, reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(total / len(rows)).backward()
        scaler.step(optimizer)
        scaler.update()

    def run() -> None:
        layers.train()
        for rows in torch.randperm(len(labels), device=device).split(flags.batch_size):
            train_on(rows)
        if device.type == "cuda":
            torch.cuda.synchronize()

    parts = layers, optimizer, scaler
    before = copy.deepcopy([part.state_dict() for part in parts])
    with torch.random.fork_rng():
        train_on(torch.arange(min(flags.batch_size, len(labels)), device=device))
    for part, state in zip(parts, before, strict=True):
        part.load_state_dict(state)
    return run


def _build_predict(
    torch: Any, layers: Any, forward: Callable, valid: Tokens, flags: TorchFlags, device: Any
) -> Callable[[], np.ndarray]:  # fmt: skip
    """`predict()`: int64[V] labels."""
    ids, last = _to_device(torch, valid, device)

    def predict() -> np.ndarray:
        layers.eval()
        with torch.inference_mode(), _autocast(torch, flags.precision, device):
            parts = zip(ids.split(_VALID_BATCH), last.split(_VALID_BATCH), strict=True)
            return torch.cat([forward(*part).argmax(dim=1) for part in parts]).cpu().numpy()

    return predict


def _to_device(torch: Any, tokens: Tokens, device: Any) -> tuple[Any, Any]:
    """ids int32[D, 40], and int64[D]: where each text's last token stands."""
    last = torch.from_numpy(tokens.lengths - 1)
    return torch.from_numpy(tokens.ids).to(device), last.to(device)


def _autocast(torch: Any, precision: str, device: Any) -> Any:
    dtype = torch.float16 if precision == "mixed_float16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "float32")


if __name__ == "__main__":
    run_command(main)
