"""Which of nlpaug's augmenters run here: each is constructed and used, models from small local directories.

`python -m tests.nlpaug_table` writes docs/nlpaug.md; a test holds the page against what happens.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from bothways.config import Protect
from bothways.errors import UserError
from bothways.input_side.transform import InputContext
from bothways.registry import TRANSFORMS
from bothways.seeding import keys
from tests import tiny

PAGE = Path(__file__).parents[1] / "docs" / "nlpaug.md"
TEXTS = [
    "The film was good and it is a very lovely story. It was dull with a bad plot! The end is great.",
    "They believe that the actor was quite awful, and the music is one line. Start with a scene?",
    "A very good film with music and a plot.",
]
CONTEXT = InputContext(slot="augment/0/0", protect=Protect(negators=False, numbers=False))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One augmenter with arguments, `shown` as the page shows them. `arguments`: made from a folder of small models.
    `runs`: whether it is expected to. `about`: what it needs or what was mended."""

    augmenter: str
    shown: str = ""
    arguments: Callable[[Path], dict[str, Any]] = lambda folder: {}
    runs: bool = True
    about: str = ""


def _plain(augmenter: str, about: str = "", **arguments: Any) -> Case:
    shown = ", ".join(f"{key}: {value}" for key, value in arguments.items())
    return Case(augmenter=augmenter, shown=shown, arguments=lambda folder: arguments, about=about)


NLTK = "needs nltk with data that nltk downloads; `synonym_replacement` has WordNet without it"
STEPS = [{"augmenter": "char.KeyboardAug"}, {"augmenter": "word.RandomWordAug", "arguments": {"action": "swap"}}]
CASES = (
    _plain("char.KeyboardAug"),
    _plain("char.OcrAug"),
    *(_plain("char.RandomCharAug", action=action) for action in ("insert", "substitute", "swap", "delete")),
    *(_plain("word.RandomWordAug", action=action) for action in ("substitute", "swap", "delete", "crop")),
    _plain("word.SpellingAug", "mended: `dict_path` was ignored after the first one of a process"),
    _plain("word.SplitAug", "mended: broke on texts without a long word"),
    Case(
        augmenter="word.ReservedAug",
        shown="reserved_tokens: [[film, movie]]",
        arguments=lambda folder: {"reserved_tokens": [["film", "movie"]]},
        about="mended: broke on texts without one of the words",
    ),
    *(
        Case(
            augmenter="word.TfIdfAug",
            shown=f"model_path: DIR, action: {action}",
            arguments=lambda folder, action=action: {"model_path": str(folder / "tfidf"), "action": action},
            about="files of nlpaug's `TfIdf`; mended: `model_path` was ignored after the first one of a process",
        )
        for action in ("insert", "substitute")
    ),
    *(
        Case(
            augmenter="word.ContextualWordEmbsAug",
            shown=f"model_path: DIR, model_type: bert, action: {action}",
            arguments=lambda folder, action=action: {
                "model_path": str(folder / "bert"),
                "model_type": "bert",
                "action": action,
            },
            about="mended: a tokenizer's method that transformers 5 has no more",
        )
        for action in ("insert", "substitute")
    ),
    Case(
        augmenter="word.BackTranslationAug",
        shown="from_model_name: DIR, to_model_name: DIR",
        arguments=lambda folder: {
            "from_model_name": str(folder / "t5"),
            "to_model_name": str(folder / "t5"),
            "max_length": 12,
        },
        about="mended: two worker processes were started for every text",
    ),
    Case(
        augmenter="sentence.AbstSummAug",
        shown="model_path: DIR, tokenizer_path: DIR, use_custom_api: false",
        arguments=lambda folder: {
            "model_path": str(folder / "t5"),
            "tokenizer_path": str(folder / "t5"),
            "use_custom_api": False,
            "min_length": 4,
            "max_length": 12,
        },
        about="mended: the pipeline `summarization` is gone from transformers 5",
    ),
    *(
        Case(
            augmenter="sentence.ContextualWordEmbsForSentenceAug",
            shown=f"model_path: DIR, model_type: gpt2, use_custom_api: {str(custom).lower()}",
            arguments=lambda folder, custom=custom: {
                "model_path": str(folder / "gpt2"),
                "model_type": "gpt2",
                "use_custom_api": custom,
                "min_length": 4,
                "max_length": 40,
            },
        )
        for custom in (True, False)
    ),
    *(
        _plain("sentence.RandomSentAug", "mended: sentences were split by nltk with a download; now by ours", mode=mode)
        for mode in ("neighbor", "left", "right", "random")
    ),
    Case(augmenter="flow.Sequential", shown="flow: [{augmenter: …}, …]", arguments=lambda folder: {"flow": STEPS}),
    Case(augmenter="flow.Sometimes", shown="flow: [{augmenter: …}, …]", arguments=lambda folder: {"flow": STEPS}),
    Case(augmenter="word.SynonymAug", runs=False, about=NLTK),
    Case(augmenter="word.AntonymAug", runs=False, about="needs nltk with data that nltk downloads"),
    Case(
        augmenter="word.WordEmbsAug",
        shown="model_type: glove, model_path: FILE",
        arguments=lambda folder: {"model_type": "glove", "model_path": str(folder / "vectors.txt")},
        runs=False,
        about="needs gensim",
    ),
    Case(
        augmenter="sentence.LambadaAug",
        shown="model_dir: DIR",
        arguments=lambda folder: {"model_dir": str(folder / "gpt2")},
        runs=False,
        about="makes new texts from labels and changes none; it also needs simpletransformers",
    ),
)


def outcome(case: Case, folder: Path, texts: list[str] = TEXTS, seed: int = 0) -> list[str]:
    """What texts become. Raises `UserError` where the augmenter does not run."""
    transform = TRANSFORMS.get("nlpaug")(augmenter=case.augmenter, arguments=case.arguments(folder))
    batch = CONTEXT.read(texts, keys(seed, np.arange(len(texts))))
    result: list[str] = transform(batch, CONTEXT).texts()
    return result


def models(folder: Path) -> Path:
    """Small models with random weights in `folder`: a masked, a causal and a sequence-to-sequence one; tf-idf files."""
    from nlpaug.model.word_stats import TfIdf
    from transformers import (
        AutoTokenizer,
        BertConfig,
        BertForMaskedLM,
        GPT2Config,
        GPT2LMHeadModel,
        T5Config,
        T5ForConditionalGeneration,
    )

    tokenizer = AutoTokenizer.from_pretrained(tiny.model_dir("roberta"))  # the family without segment ids
    tokenizer.eos_token = "[SEP]"
    size, end = len(tokenizer), tokenizer.sep_token_id
    narrow: dict[str, Any] = {"vocab_size": size, "pad_token_id": 0, "eos_token_id": end}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = {
            "bert": BertForMaskedLM(
                BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, **narrow)
            ),
            "gpt2": GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, bos_token_id=end, **narrow)),
            "t5": T5ForConditionalGeneration(
                T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0, **narrow)
            ),
        }
    for name, model in made.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    counts = TfIdf()
    counts.train([text.split() for text in TEXTS])
    (folder / "tfidf").mkdir()
    counts.save(str(folder / "tfidf"))
    return folder


def page() -> str:
    """docs/nlpaug.md."""
    from importlib.metadata import version

    lines = [
        "# nlpaug's augmenters",
        "",
        "The transform `nlpaug` takes them by name, as in `{name: nlpaug, augmenter: char.KeyboardAug}`, with their",
        "own `arguments`. Rows are seeded one by one, originals come back where a protected word would be lost, and",
        "models are read from local directories (DIR). It is the slow road: most have a faster operation beside them.",
        "",
        f"Made by `python -m tests.nlpaug_table` with nlpaug {version('nlpaug')} and",
        f"transformers {version('transformers')}: each was constructed and used on {len(TEXTS)} texts; models were",
        "small ones with random weights.",
        "",
        "| augmenter | arguments | runs | |",
        "|---|---|---|---|",
        *(
            f"| `{case.augmenter}` | {f'`{case.shown}`' if case.shown else ''} | {'yes' if case.runs else 'no'} "
            f"| {case.about} |"
            for case in CASES
        ),
        "",
        "Also mended for all with models: nlpaug kept them by the last part of their path, so that `a/model` and",
        "`b/model` were one. A text that an augmenter cannot read stays as it is; an augmenter that fails on a plain",
        "English sentence is refused when it is first used, with nlpaug's reason.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    with TemporaryDirectory() as folder:
        models(Path(folder))
        wrong = [case for case in CASES if runs(case, Path(folder)) != case.runs]
    for case in wrong:
        sys.stderr.write(f"{case.augmenter} {case.shown}: the table is wrong\n")
    if not wrong:
        PAGE.write_text(page(), encoding="utf-8")
    return len(wrong)


def runs(case: Case, folder: Path) -> bool:
    """Whether an augmenter can be constructed and changes something."""
    try:
        return any(outcome(case, folder, seed=seed) != TEXTS for seed in range(3))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return False


if __name__ == "__main__":
    sys.exit(main())
