"""The real assets hold what ASSETS' descriptions promise."""

from __future__ import annotations

from collections import Counter

import pytest

from bothways import assets
from bothways.assets.files import sha256
from bothways.assets.readers import Rows


def read(name: str) -> Rows:
    item = assets.asset(name)
    assert item.read is not None
    return item.read(assets.resolve(f"asset:{name}"))


def test_minilm_is_the_published_checkpoint_and_its_tokenizer_loads() -> None:
    from tokenizers import Tokenizer

    folder = assets.resolve("asset:minilm-l6")
    # The digest that three independent uploads of all-MiniLM-L6-v2 share.
    assert sha256(folder / "model.safetensors") == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("Both ways!").tokens
    assert [token for token in tokens if token != "[PAD]"] == ["[CLS]", "both", "ways", "!", "[SEP]"]


@pytest.mark.slow
def test_minilm_loads_with_transformers() -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(1)
    folder = assets.resolve("asset:minilm-l6")
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert 22_500_000 < sum(p.numel() for p in model.parameters()) < 23_000_000
    with torch.no_grad():
        hidden = model(**tokenizer(["a fine film", "dull"], padding=True, return_tensors="pt")).last_hidden_state
    assert hidden.shape[0] == 2 and hidden.shape[2] == 384 and bool(hidden.isfinite().all())


def test_rotten_tomatoes_has_its_reviews_and_its_plots() -> None:
    rows = read("rotten_tomatoes")
    assert Counter(label for _, label in rows["train"]) == {"fresh": 7403, "rotten": 5405}
    assert len({text for text, _ in rows["train"]}) == 12_752
    assert len(rows["unlabelled"]) == 1097
    assert {label for _, label in rows["unlabelled"]} == {None}


def test_reuters_r8_has_its_own_split() -> None:
    rows = read("reuters_r8")
    assert (len(rows["train"]), len(rows["test"])) == (5485, 2189)
    assert {label for _, label in rows["train"]} == {label for _, label in rows["test"]}
    assert len({label for _, label in rows["train"]}) == 8
    assert all(text.strip() for text, _ in rows["train"])


def test_wordnet_is_laid_out_for_nltk() -> None:
    folder = assets.resolve("asset:wordnet") / "corpora" / "wordnet"
    lexnames = [line.split("\t") for line in (folder / "lexnames").read_text().splitlines()]
    assert len(lexnames) == 45
    assert lexnames[3] == ["03", "noun.Tops", "1"] and lexnames[44] == ["44", "adj.ppl", "3"]
    assert (folder / "index.sense").stat().st_size > 5_000_000
