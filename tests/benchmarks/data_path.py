"""Rows from text to token ids: streamed through Ray Data, per core beside the peers, and the wait for a first batch.

    python tests/benchmarks/data_path.py [--most 10000000] [--texts FILE]

FILE: `label<TAB>text` lines; by default the SST-2 sentences beside the project, or else the rotten_tomatoes asset.
Every row is an augmented view of one of them: two operations, then the tokenizer of MiniLM. One JSON line each for

- `stream N`: N views through one execution of Ray Data on this machine, read to the end. Seconds, those until the first
  block, rows per second, and the most memory that was held (MiB): by this process, by the cluster's processes (Ray's
  own among them), and by the object store, which is part of both (proportional set sizes: nothing is counted twice);
- `encode`, `tokenize`: rows per second of this process' CPU time without Ray, beside `datasets.map(batched=True)` with
  nlpaug doing the same two operations and the same tokenizer;
- `first batch`: seconds from the call to the first encoded rows, in a warm process, of 50,000 views.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import pyarrow as pa
from transforms import SST2, sentences

from bothways import policy
from bothways.assets import resolve
from bothways.batches import batching, planning
from bothways.config import Augment, InputSide

P = 0.1
MAX_LENGTH = 64
ROUNDS = 5
SIZES = (10**4, 10**5, 10**6, 10**7)
WARM = 10**6
"""Views before anything is measured: so many that every process Ray starts for them has imported what it needs."""
PEERS_ROWS = 2000


def table(texts: list[str]) -> pa.Table:
    count = len(texts)
    return pa.table(
        {
            "id": pa.array(range(count), pa.int64()),
            "text": pa.array(texts, pa.string()),
            "pair": pa.nulls(count, pa.string()),
            "label": pa.array(np.zeros(count, np.int64)),
        }
    )


def two_operations() -> InputSide:
    operations = [{"name": name, "p": P} for name in ("random_deletion", "random_swap")]
    return InputSide.model_validate({"augment": {"n_aug": 1, "keep_original": False, "policy": [operations]}})


def views_of(train: pa.Table, count: int, augment: Augment) -> planning.PlannedViews:
    """The views that a trial of `count` rows would show its model, in that order."""
    lengths = np.asarray([len(text) for text in train["text"].to_pylist()], np.int64)
    return planning.plan(lengths, augment, batch_size=100, steps=count // 100, seed=0).views(train)


def encoder(side: InputSide | None, train: pa.Table) -> batching.Encode:
    return batching.Encode(
        tokenizer_path=str(resolve("asset:minilm-l6")),
        max_length=MAX_LENGTH,
        paired=False,
        side=side,
        statistics=policy.statistics(train, "en"),
    )


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """The most memory held meanwhile, in MiB, looked at twice a second."""
    most = {"driver": 0.0, "cluster": 0.0, "object_store": 0.0}
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.5):
            for name, value in zip(most, measuring.held(), strict=True):
                most[name] = max(most[name], value)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


def stream(sizes: list[int], train: pa.Table, side: InputSide) -> None:
    """Through Ray Data, each size after the smaller one, in the same warm cluster."""
    from bothways.edges.ray_data import RayExecute

    encode, before = encoder(side, train), 0.0
    for size in sizes:
        views = views_of(train, size, side.augment)
        with watched() as most:
            began = time.monotonic()
            blocks = RayExecute()(views, encode)
            rows, first = next(blocks).num_rows, time.monotonic() - began
            rows += sum(block.num_rows for block in blocks)
            seconds = time.monotonic() - began
        assert rows == size
        per_row = seconds / size
        measuring.row(
            what=f"stream {size:.0e}".replace("e+0", "e"),
            unit="rows/s",
            ours=1 / per_row,
            seconds=seconds,
            first_block_s=first,
            per_row_to_the_size_before=per_row / before if before else None,
            **{f"{name}_mib": round(value) for name, value in most.items()},
        )
        before = per_row


def first_batch(train: pa.Table, side: InputSide) -> None:
    """How long a trial waits for its first block, every process being warm."""
    from bothways.edges.ray_data import RayExecute

    encode, waits = encoder(side, train), []
    for _ in range(11):
        views = views_of(train, 50_000, side.augment)
        began = time.monotonic()
        blocks = RayExecute()(views, encode)
        next(blocks)
        waits.append(time.monotonic() - began)
        blocks.close()
    measuring.row(what="first batch", unit="s", ours=statistics.median(waits), worst=max(waits))


def peer_map(texts: list[str], operations: bool) -> Callable[[], object]:
    """`datasets.map` with the tokenizer, and nlpaug before it when `operations`."""
    import datasets
    from nlpaug.augmenter.word import RandomWordAug
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    datasets.disable_caching()
    tokenizer = AutoTokenizer.from_pretrained(resolve("asset:minilm-l6"))
    delete, swap = (RandomWordAug(action=action, aug_p=P, aug_max=None) for action in ("delete", "swap"))
    rows = datasets.Dataset.from_dict({"text": texts})

    def encode(batch: dict[str, list[str]]) -> Any:
        read = batch["text"]
        if operations:
            read = ["".join(swap.augment("".join(delete.augment(text)))) for text in read]
        return tokenizer(read, truncation=True, max_length=MAX_LENGTH)

    return lambda: rows.map(encode, batched=True)


def per_core(train: pa.Table, side: InputSide) -> None:
    """Rows per second of CPU time in this process, both sides in turns."""
    from transforms import seconds

    texts = train["text"].to_pylist()[:PEERS_ROWS]
    views = views_of(train, 20_000, side.augment)
    blocks = [views.slice(start, 2048) for start in range(0, views.num_rows, 2048)]
    for what, wanted in (("encode", side), ("tokenize", None)):
        encode, peer = encoder(wanted, train), peer_map(texts, operations=wanted is not None)
        first = seconds(lambda encode=encode: [encode(block) for block in blocks]) / views.num_rows
        best = [float("inf")] * 2
        for _ in range(ROUNDS):
            best[0] = min(best[0], seconds(lambda encode=encode: [encode(block) for block in blocks]) / views.num_rows)
            best[1] = min(best[1], seconds(peer) / len(texts))
        measuring.row(
            what=what,
            unit="rows/s/core",
            ours=1 / best[0],
            ours_cold=1 / first,
            peer="datasets.map" + (", nlpaug delete and swap" if wanted else ""),
            theirs=1 / best[1],
            ratio=best[1] / best[0],
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--most", type=int, default=SIZES[-1])
    options.add_argument("--texts", type=Path, default=SST2)
    chosen = options.parse_args()
    train, side = table(sentences(chosen.texts)), two_operations()
    per_core(train, side)

    from bothways.cli.tune import quiet_ray

    quiet_ray()
    import ray

    from bothways.config import Run
    from bothways.edges.ray_cluster import start_ray
    from bothways.edges.ray_data import RayExecute

    start_ray(Run())
    for _ in RayExecute()(views_of(train, WARM, side.augment), encoder(side, train)):
        pass
    stream([size for size in SIZES if size <= chosen.most], train, side)
    first_batch(train, side)  # last: an execution that is given up may take processes with it
    ray.shutdown()


if __name__ == "__main__":
    main()
