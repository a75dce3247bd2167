"""Rows per second and core of every operation, text to text, beside nlpaug on the same texts at the same p.

    python tests/benchmarks/transforms.py [FILE [ROWS]]

FILE: `label<TAB>text` lines; by default the SST-2 sentences beside the project, or else the rotten_tomatoes asset.
One JSON line per operation. `ours`, `theirs`: rows per second of this process's CPU time, the best of several rounds
taken in turns. `protected`: ours with negators and numbers protected, as training has it; nlpaug has no such thing.
`limit`: the same rows joined into one string and cut again, which any method that works on whole batches pays. nlpaug
has no random insertion and its synonyms need a download: those stand beside its random substitution.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bothways.config import Protect
from bothways.input_side.statistics import Statistics
from bothways.input_side.transform import InputContext
from bothways.registry import TRANSFORMS
from bothways.seeding import keys

P = 0.1
CHUNK = 2048
ROUNDS = 9
SST2 = Path(__file__).parents[3] / "shared" / "data" / "sst2" / "train.tsv"
OPERATIONS: list[tuple[str, dict[str, Any], str]] = [
    ("random_deletion", {}, "delete"),
    ("random_swap", {}, "swap"),
    ("random_insertion", {"insert": "punctuation"}, "substitute"),
    ("random_insertion", {"insert": "vocabulary"}, "substitute"),
    ("random_insertion", {"insert": "synonym"}, "substitute"),
    ("random_substitution", {"weighting": "uniform"}, "substitute"),
    ("random_substitution", {"weighting": "tfidf"}, "substitute"),
    ("synonym_replacement", {}, "substitute"),
    ("char_noise", {"kinds": ("keyboard",)}, "keyboard"),
    ("char_noise", {"kinds": ("ocr",)}, "ocr"),
    ("char_noise", {}, "keyboard"),
]


def sentences(file: Path) -> list[str]:
    if file.exists():
        return [line.partition("\t")[2] for line in file.read_text(encoding="utf-8").splitlines()]
    from bothways.config import Data
    from bothways.data import load

    texts: list[str] = load(Data(source="asset:rotten_tomatoes")).train["text"].to_pylist()
    return texts


def peers(texts: list[str]) -> dict[str, Callable[[list[str]], object]]:
    import nlpaug.augmenter.char as char
    import nlpaug.augmenter.word as word

    vocabulary = sorted({w for text in texts for w in text.split() if w.isalpha()})
    augmenters = {
        "delete": word.RandomWordAug(action="delete", aug_p=P, aug_max=None),
        "swap": word.RandomWordAug(action="swap", aug_p=P, aug_max=None),
        "substitute": word.RandomWordAug(action="substitute", aug_p=P, aug_max=None, target_words=vocabulary),
        "keyboard": char.KeyboardAug(aug_word_p=P, aug_char_max=1, aug_word_max=None),
        "ocr": char.OcrAug(aug_word_p=P, aug_char_max=1, aug_word_max=None),
    }
    return {name: lambda rows, a=a: [a.augment(row) for row in rows] for name, a in augmenters.items()}


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    texts = sentences(Path(sys.argv[1]) if len(sys.argv) > 1 else SST2)[
        : int(sys.argv[2]) if len(sys.argv) > 2 else None
    ]
    row_keys = keys(np.arange(len(texts)))
    chunks = [(texts[i : i + CHUNK], row_keys[i : i + CHUNK]) for i in range(0, len(texts), CHUNK)]
    protecting = InputContext(slot="augment/0/0", statistics=Statistics.of(texts))
    free = replace(protecting, protect=Protect(negators=False, numbers=False))
    run_peer, few = peers(texts), texts[:500]

    def limit() -> None:
        for rows, _ in chunks:
            joined = "".join(rows).encode("utf-32-le").decode("utf-32-le")
            ends = np.append(0, np.cumsum(np.fromiter(map(len, rows), dtype=np.int64))).tolist()
            _ = [joined[a:b] for a, b in pairwise(ends)]

    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    for name, knobs, peer in OPERATIONS:
        transform = TRANSFORMS.get(name)(p=P, **knobs)

        def ours(context: InputContext, transform: Any = transform) -> None:
            for rows, k in chunks:
                transform(context.read(rows, k), context).texts()

        ours(protecting)  # lexicons are built at the first use
        best = [float("inf")] * 4
        for _ in range(ROUNDS):
            best[0] = min(best[0], seconds(lambda ours=ours: ours(free)) / len(texts))
            best[1] = min(best[1], seconds(lambda peer=peer: run_peer[peer](few)) / len(few))
            best[2] = min(best[2], seconds(limit) / len(texts))
            best[3] = min(best[3], seconds(lambda ours=ours: ours(protecting)) / len(texts))
        line = {
            "what": f"{name} {json.dumps(knobs)}" if knobs else name,
            "peer": f"nlpaug {peer}",
            "unit": "rows/s/core",
            "ours": round(1 / best[0]),
            "protected": round(1 / best[3]),
            "theirs": round(1 / best[1]),
            "ratio": round(best[1] / best[0], 1),
            "limit": round(1 / best[2]),
            "share_of_limit": round(best[2] / best[0], 3),
            "machine": machine,
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
