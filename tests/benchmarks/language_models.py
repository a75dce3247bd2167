"""Rows per second of what language models write, by rows of a forward pass.

    python tests/benchmarks/language_models.py [--costs] [ROWS]

One JSON line each. `lm_sampling`: prompts of rotten_tomatoes, smollm2-135m, 32 new tokens. No translation or
summarisation model comes as a package, so `seq2seq` is a model of the size of T5-small (60 M parameters) with random
weights, which writes 32 tokens for 14 to 18 words: `summarize` pays that once a row, `back_translation` twice.
`contextual_substitution`: p = 0.15 with a masked language model of MiniLM-L6's size, its head of random weights.
--costs: keep the rates at the transforms' own batches, for `bothways list` (costs.yaml beside it).
`batch`: rows of a forward pass; transforms use 8. `again`: the same rows out of the results remembered. Rates are by
the clock, with as many threads as torch takes (OMP_NUM_THREADS).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import measuring
import numpy as np
import torch
import yaml
from transformers import T5Config, T5ForConditionalGeneration

from bothways.assets import resolve, root
from bothways.cli.catalogue import COSTS
from bothways.config import Data
from bothways.data import load
from bothways.input_side import generation
from bothways.input_side.examples import Examples
from bothways.input_side.statistics import Statistics
from bothways.input_side.transform import InputContext
from bothways.registry import TRANSFORMS
from bothways.seeding import keys

BATCHES = (8, 16, 1)


def like_t5_small(folder: Path) -> str:
    """With minilm's tokenizer, which knows English words."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve("asset:minilm-l6"))
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=512,
        d_ff=2048,
        num_layers=6,
        num_heads=8,
        decoder_start_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return str(folder)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(what: str, rows: int, work: Callable[[int], object], *, batches: Sequence[int], again: bool) -> float:
    """Rows a second at the first of the `batches`. `work`: with the number of a round, so that nothing of another round
    is remembered."""
    rates = []
    for number, batch in enumerate(batches):
        generation.ROWS = batch
        fresh = seconds(partial(work, number))
        rates.append(rows / fresh)
        remembered = {"again": round(rows / seconds(partial(work, number)))} if again else {}
        measuring.row(
            what=what,
            batch=batch,
            rows=rows,
            unit="rows/s",
            ours=rows / fresh,
            threads=torch.get_num_threads(),
            device="cuda" if torch.cuda.is_available() else "cpu",
            **remembered,
        )
    return rates[0]


def sampling(rows: list[str], context: InputContext) -> Callable[[int], object]:
    transform = TRANSFORMS.build({"name": "lm_sampling", "p": 1.0, "max_tokens": 32})
    row_keys = keys(np.arange(len(rows)))

    def work(number: int) -> object:
        here = replace(context, slot=f"augment/{number}/0")
        return transform(here.read(rows, row_keys), here).texts()

    return work


def substituting(rows: list[str], folder: str) -> Callable[[int], object]:
    transform = TRANSFORMS.build({"name": "contextual_substitution", "model": folder})
    context, row_keys = InputContext(slot="augment/0/0", statistics=Statistics.of(rows)), keys(np.arange(len(rows)))

    def work(number: int) -> object:
        here = replace(context, slot=f"augment/{number}/0")
        return transform(here.read(rows, row_keys), here).texts()

    return work


def like_minilm(folder: Path) -> str:
    """MiniLM-L6 with a head for masked words, which it comes without."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    path = resolve("asset:minilm-l6")
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_pretrained(path).save_pretrained(folder)
    AutoTokenizer.from_pretrained(path).save_pretrained(folder)
    return str(folder)


def keep(rates: dict[str, float]) -> None:
    """Writes them into the costs file, to two digits."""
    found = yaml.safe_load(COSTS.read_text("utf-8"))
    found["models"] = {name: {"en": float(f"{rate:.2g}")} for name, rate in rates.items()}
    COSTS.write_text(measuring.COSTS_HEAD + yaml.safe_dump(found, sort_keys=False), encoding="utf-8")


def writing(rows: list[str], folder: str) -> Callable[[int], object]:
    model, row_keys = generation.language_model(folder), keys(np.arange(len(rows)))
    how = generation.Settings(temperature=0.0, new_tokens=0.0, more=32)
    return lambda number: model.write(rows, row_keys, how)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--costs", action="store_true")
    parser.add_argument("rows", nargs="?", type=int, default=32)
    asked = parser.parse_args()
    count, batches = asked.rows, BATCHES[:1] if asked.costs else BATCHES
    train = load(Data(source="asset:rotten_tomatoes")).train
    texts: list[str] = train["text"].to_pylist()
    rows = [text for text in texts if 14 <= len(text.split()) <= 18][:count]
    examples = Examples(texts, train["label"].to_numpy())
    examples.confidence(rows[:1], np.zeros(1, dtype=np.int64))  # the classifier is fitted
    context = InputContext(slot="augment/0/0", statistics=replace(Statistics.of(rows), examples=examples))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cache").mkdir()
        for part in ("assets", "lexicons", "packages"):
            if (root() / part).exists():
                (Path(folder) / "cache" / part).symlink_to(root() / part)
        os.environ["BOTHWAYS_CACHE"] = f"{folder}/cache"  # nothing is remembered from one run to the next
        path = str(resolve("asset:smollm2-135m"))
        generation.write(path, ["warm up"], keys(np.arange(1)), generation.Settings(new_tokens=0.0, more=1))
        sampled = measure("lm_sampling", len(rows), sampling(rows, context), batches=batches, again=True)
        t5 = like_t5_small(Path(folder) / "t5")
        written = measure("seq2seq", len(rows), writing(rows, t5), batches=batches, again=False)
        more = [text for text in texts if 14 <= len(text.split()) <= 18][: 8 * count]
        masked = substituting(more, like_minilm(Path(folder) / "mlm"))
        replaced = measure("contextual_substitution", len(more), masked, batches=batches[:1], again=False)
    if asked.costs:
        keep({"back_translation": written / 2, "contextual_substitution": replaced, "lm_sampling": sampled})


if __name__ == "__main__":
    main()
