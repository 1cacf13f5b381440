"""The seed's network in PyTorch, as a good engineer would write it for this task.

    python -m bench.peers.torch_lstm SHARDS --epochs 5

All token ids live on the device; an epoch's order is made on the host, which therefore knows every
batch's width without asking the device. The batches of a small pool are sorted by length and cut
to their longest text. One `nn.LSTM` of two layers (cuDNN on a GPU, oneDNN on a CPU), fused Adam,
TF32 and, if asked, autocast. Nothing is fetched from the device before an epoch's end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
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
    threads: int | None = None
    """Of a CPU (default: PyTorch's own choice). They wait for each other in busy loops: where
    others use the machine, all of its cores can be slower than one."""
    pool_batches: int = 8
    """Batches sorted by length together (1: none); more pad less, but hold fewer classes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for flag, value in (("threads", self.threads), ("pool-batches", self.pool_batches)):
            if value is not None and value < 1:
                raise ValueError(f"--{flag} {value}: must be 1 or more")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    flags = parse_flags(
        TorchFlags, argv, prog="python -m bench.peers.torch_lstm",
        description="Train the seed's network in PyTorch on a shard set.",
    )  # fmt: skip
    torch = import_peer("torch")
    if flags.threads is not None:
        torch.set_num_threads(flags.threads)
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
    for epoch in range(flags.epochs):
        started = time.perf_counter()
        run_epoch(epoch)
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
    ).to(device)

    def forward(ids, last):
        states, _ = layers["lstm"](layers["embedding"](ids))
        # right padding: what follows a text's last token does not reach its state
        state = states[torch.arange(len(last), device=device), last]
        return layers["dense"](layers["dropout"](state))

    return layers, forward


def _build_training(
    torch: Any, layers: Any, forward: Callable, train: Tokens, split: Split, flags: TorchFlags,
    device: Any,
) -> Callable[[int], None]:  # fmt: skip
    """`run(epoch)` trains on every document once, and waits for the device."""
    ids, last = _to_device(torch, train, device)
    labels = torch.from_numpy(split.train_labels.astype(np.int64)).to(device)
    weights = torch.from_numpy(split.class_weights).to(device)
    optimizer = torch.optim.Adam(layers.parameters(), eps=1e-7, fused=True)  # eps as Keras's
    scaler = torch.amp.GradScaler(device.type, enabled=flags.precision == "mixed_float16")
    cross_entropy = torch.nn.functional.cross_entropy

    def run(epoch: int) -> None:
        layers.train()
        random = np.random.default_rng([flags.seed, epoch])
        order, batches = plan_epoch(train.lengths, flags.batch_size, flags.pool_batches, random)
        rows = torch.from_numpy(order).to(device)
        for start, stop, width in batches:
            here = rows[start:stop]
            with _autocast(torch, flags.precision, device):
                logits = forward(ids[:, :width].index_select(0, here), last[here])
            total = cross_entropy(logits.float(), labels[here], weights, reduction="sum")
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(total / (stop - start)).backward()
            scaler.step(optimizer)
            scaler.update()
        if device.type == "cuda":
            torch.cuda.synchronize()

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


def plan_epoch(
    lengths: np.ndarray, batch_size: int, pool_batches: int, random: np.random.Generator
) -> tuple[np.ndarray, Iterator[tuple[int, int, int]]]:
    """The documents int64[D] of an epoch in order, and its batches: (start, stop, width) in it."""
    order = random.permutation(len(lengths))
    pools = np.arange(len(order)) // (batch_size * pool_batches)
    order = order[np.lexsort((lengths[order], pools))]
    starts = np.arange(0, len(order), batch_size)
    widths = np.maximum.reduceat(lengths[order], starts)
    batches = (
        (int(starts[i]), min(int(starts[i]) + batch_size, len(order)), int(widths[i]))
        for i in random.permutation(len(starts))
    )
    return order, batches


if __name__ == "__main__":
    run_command(main)
