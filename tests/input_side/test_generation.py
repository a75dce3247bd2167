"""Text from language models: a row's own affair, remembered by content, drawn as the model's probabilities say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bothways.errors import UserError
from bothways.input_side import generated
from bothways.input_side.generated import Results, Written
from bothways.input_side.generation import PAD, Settings, _Draw, degenerate, language_model, write
from bothways.seeding import keys
from tests.tiny_language import WORDS, causal_dir, seq2seq_dir

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cache_aside")]
every_model = pytest.mark.parametrize("made", [causal_dir, seq2seq_dir, lambda: seq2seq_dir("marian")])


def inputs(n: int = 26) -> list[str]:
    """Of 1 to 45 words: two padded lengths."""
    draw = np.random.default_rng(3)
    return [" ".join(draw.choice(WORDS, size)) for size in draw.integers(1, 46, n)]


@pytest.mark.parametrize(
    ("made", "temperature"),
    [(causal_dir, 0.0), (causal_dir, 1.0), (seq2seq_dir, 1.0), (lambda: seq2seq_dir("marian"), 1.0)],
)
def test_a_result_is_the_same_in_1_2_and_8_blocks_in_any_order_and_with_any_threads(
    made: Callable[[], str], temperature: float
) -> None:
    model = language_model(made())
    texts, row_keys = inputs(), keys(9, np.arange(26, dtype=np.uint64))
    how = Settings(temperature=temperature, top_k=8, new_tokens=0.0, more=6)
    whole = model.write(texts, row_keys, how)
    assert len(set(whole)) > 12
    for blocks in (2, 8):
        parts = np.array_split(np.arange(26), blocks)
        assert whole == [one for p in parts for one in model.write([texts[i] for i in p], row_keys[p], how)]
    order = np.random.default_rng(0).permutation(26)
    assert [whole[i] for i in order] == model.write([texts[i] for i in order], row_keys[order], how)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert whole == model.write(texts, row_keys, how)
    finally:
        torch.set_num_threads(threads)


@every_model
def test_the_scores_of_a_row_do_not_depend_on_its_neighbours_to_the_last_bit(
    made: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the equality of texts rests on."""
    model = language_model(made())
    seen: list[torch.Tensor] = []
    draw = _Draw.__call__

    def watch(self: _Draw, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append(scores.clone())
        chosen: torch.Tensor = draw(self, ids, scores)
        return chosen

    monkeypatch.setattr(_Draw, "__call__", watch)
    row, short = "the film was quite good", [text for text in inputs() if len(text.split()) < PAD]
    for company, place in ([], 0), (short[:7], 7), (short[:5], 3):
        batch = [*company[:place], row, *company[place:]]
        model.write(batch, keys(np.arange(len(batch), dtype=np.uint64)), Settings(new_tokens=0.0, more=2))
    first, last, between = seen[::2]
    assert torch.equal(first[0], last[7]) and torch.equal(first[0], between[3])
    assert not torch.equal(first[0], last[0])


def test_tokens_are_drawn_as_often_as_their_probabilities_say() -> None:
    model = language_model(causal_dir())
    ids = model.tokenizer(["the film"], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        scores = model.module(ids).logits[0, -1]
    top = torch.topk(scores.double() / 0.7, 6)
    expected = torch.softmax(top.values, 0).numpy()
    n = 20_000
    row_keys, many = keys(np.arange(n, dtype=np.uint64)), scores.expand(n, -1)
    picked = _Draw(row_keys, Settings(temperature=0.7, top_k=6))(None, many).argmax(dim=1).numpy()
    shares = np.array([(picked == token).mean() for token in top.indices.tolist()])
    assert shares.sum() == 1.0
    assert np.abs(shares - expected).max() < 4 * np.sqrt(0.25 / n)
    kept = _Draw(row_keys, Settings(temperature=0.7, top_k=6, top_p=0.5))(None, many).argmax(dim=1)
    nucleus = int(np.searchsorted(np.cumsum(expected), 0.5)) + 1
    assert set(kept.tolist()) == set(top.indices[:nucleus].tolist())


def test_without_temperature_it_is_greedy_search() -> None:
    model = language_model(causal_dir())
    (written,) = model.write(["the film was"], keys(np.arange(1)), Settings(temperature=0.0, new_tokens=0.0, more=5))
    ids = model.tokenizer(["the film was"], return_tensors="pt")["input_ids"]
    for _ in range(5):
        with torch.inference_mode():
            token = model.module(ids).logits[0, -1].argmax()
        ids = torch.cat([ids, token.reshape(1, 1)], dim=1)
        if token == 1:
            break
    assert written.text == model.tokenizer.decode(ids[0, 3:].tolist(), skip_special_tokens=True)


def test_results_are_remembered_by_content_and_shared_through_the_disk(cache_aside: Path) -> None:
    source, texts, row_keys = causal_dir(seed=7), inputs(5), keys(np.arange(5, dtype=np.uint64))
    how = Settings(new_tokens=0.0, more=6)
    there = set((cache_aside / "generated").glob("*"))
    first = write(source, texts, row_keys, how)
    loads = language_model.cache_info()
    assert write(source, texts[::-1], row_keys[::-1], how) == first[::-1]
    generated._results.cache_clear()  # as another process: only the disk knows
    assert write(source, texts, row_keys, how) == first
    assert language_model.cache_info() == loads
    assert write(source, texts, keys(row_keys, "other"), how) != first
    assert language_model.cache_info() != loads
    assert write(causal_dir(seed=6), texts, row_keys, how) != first
    assert len(set((cache_aside / "generated").glob("*")) - there) == 2


def test_half_a_line_of_a_process_that_died_is_nobodys_result(tmp_path: Path) -> None:
    Results(tmp_path).put({"a": Written("one", True), "b": Written("两\n行", False)})
    (file,) = tmp_path.iterdir()
    with file.open("a") as opened:
        opened.write('["c", "ha')
    reader = Results(tmp_path)
    assert reader.get(["a", "b", "c"]) == {"a": Written("one", True), "b": Written("两\n行", False)}
    with file.open("a") as opened:
        opened.write('lf", true]\n')
    assert reader.get(["c"]) == {"c": Written("half", True)}
    assert json.loads(file.read_text("utf-8").splitlines()[1])[1] == "两\n行"


def test_a_folder_that_cannot_be_written_costs_no_result(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    known = Results(tmp_path / "file" / "below")
    known.put({"a": Written("one", True)})
    assert known.get(["a", "b"]) == {"a": Written("one", True)}


def test_what_is_too_long_is_left_unwritten_and_what_writes_nothing_is_an_error(tmp_path: Path) -> None:
    long = " ".join(["film"] * 600)
    assert write(causal_dir(), [long], keys(np.arange(1)), Settings()) == [Written("", False)]
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="is no model that writes text"):
        write(str(tmp_path), ["text"], keys(np.arange(1)), Settings())


def test_texts_that_go_round_in_circles_are_told_from_others() -> None:
    assert degenerate("so good so good so good so good so good", 1, 100)
    assert degenerate("很好很好很好很好很好很好", 1, 100)
    assert degenerate("short", 6, 100) and degenerate("long", 1, 3) and degenerate("", 0, 10)
    assert not degenerate("a film that is good and a story that is not", 1, 100)
    assert not degenerate("这部电影的故事讲得很好看", 1, 100)
