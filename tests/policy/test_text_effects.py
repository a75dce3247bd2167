"""What a policy does to text, held against sacrebleu and against counting by hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU

from bothways import policy
from bothways.config import Experiment, Protect
from bothways.policy import effects as text_effects
from bothways.policy.effects import Effects, distinct, of_copies, self_bleu, variety
from bothways.text import Segmentation, TextBatch
from bothways.training.workspace import Workspace
from tests import tiny

WORDS = ["the", "film", "was", "not", "good", ",", "a", "dull", "story", "and", "one", "3", "times"]
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)


def by_sacrebleu(texts: Sequence[str], segmentation: Segmentation = "character") -> float:
    spaced = [" ".join(row) for row in TextBatch.from_texts(texts, None, segmentation).tokens()]
    bleu = BLEU(tokenize="none", effective_order=True, smooth_method="exp")
    scores = [bleu.sentence_score(one, spaced[:i] + spaced[i + 1 :]).score for i, one in enumerate(spaced)]
    return float(np.mean(scores)) / 100


@settings(max_examples=100, deadline=None)
@given(st.lists(SENTENCES, min_size=2, max_size=8))
def test_self_bleu_is_what_sacrebleu_says(texts: list[str]) -> None:
    assert self_bleu(texts) == pytest.approx(by_sacrebleu(texts))


@pytest.mark.parametrize("segmentation", ["character", "word"])
def test_self_bleu_of_chinese_is_over_its_characters_or_words(segmentation: Segmentation) -> None:
    texts = ["这部电影的导演很好", "这部电影不好看", "导演讲了一个关于城市的故事", "这部电影的导演很好看"]
    assert self_bleu(texts, segmentation) == pytest.approx(by_sacrebleu(texts, segmentation))
    assert 0.1 < self_bleu(texts, "character") != self_bleu(texts, "word")


def test_copies_have_self_bleu_1_and_half_of_what_is_distinct() -> None:
    texts = ["one film with a plot", "two of them , and it was good", "three words here"]
    assert self_bleu([*texts, *texts]) == pytest.approx(1.0)
    assert distinct([*texts, *texts], 2) == pytest.approx(distinct(texts, 2) / 2)
    assert variety([]) == variety(["", " "]) == {"distinct_1": 0.0, "distinct_2": 0.0, "self_bleu": 0.0}
    assert self_bleu(["alone"]) == 0.0


def test_distinct_counts_neighbours_within_a_row_only() -> None:
    assert distinct(["a b a b", "b a"], 1) == pytest.approx(2 / 6)
    assert distinct(["a b a b", "b a"], 2) == pytest.approx(2 / 4)  # ab ba ab | ba, and not b|b
    assert distinct(["a b a b", "b a"], 3) == pytest.approx(2 / 2)
    assert distinct(["好电影", "好电影"], 2) == pytest.approx(2 / 4)
    assert distinct(["alone"], 2) == 0.0


def test_sums_are_what_one_counts_by_hand() -> None:
    before = ["it is not good , not at all", "all 3 of them", "nothing lost", "没有3个人"]
    after = ["it is good , not at", "of 3 all them too", "nothing lost", "有3个人"]
    found = Effects.of(before, after)
    assert (found.texts, found.changed) == (4, 3)
    assert (found.protected, found.lost) == (6, 2)  # not not | 3 | nothing | 没 3
    assert (found.words_before, found.words_after) == (7 + 4 + 2 + 5, 5 + 5 + 2 + 4)
    assert found.characters_after - found.characters_before == -8 + 4 - 1
    assert found.metrics()["changed"] == 0.75
    assert found.metrics()["protected_lost"] == pytest.approx(2 / 6)
    assert found.metrics()["words_ratio"] == pytest.approx(16 / 18)


def test_words_that_the_user_lists_count_too() -> None:
    before, after = ["not a Good film", "好电影"], ["a film", "电影"]
    assert (Effects.of(before, after).protected, Effects.of(before, after).lost) == (1, 1)
    listed = Effects.of(before, after, ("good", "好"))
    assert (listed.protected, listed.lost) == (3, 3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), max_size=8), st.integers(0, 8))
def test_the_sums_of_parts_add_up(pairs: list[tuple[str, str]], cut: int) -> None:
    def of(some: list[tuple[str, str]]) -> Effects:
        return Effects.of([a for a, _ in some], [b for _, b in some])

    assert of(pairs[:cut]) + of(pairs[cut:]) == of(pairs)
    assert of([(a, a) for a, _ in pairs]).metrics()["changed"] == 0


def experiment(name: str = "random_deletion", n_aug: int = 2, **knobs: Any) -> Experiment:
    return tiny.experiment(input={"augment": {"n_aug": n_aug, "policy": [[{"name": name, **knobs}]]}})


def effects(what: Experiment, train: Any = None) -> dict[str, float]:
    rows = tiny.rows(300, seed=1) if train is None else train
    return of_copies(rows, what, policy.statistics(rows, what.data.language))


def test_the_numbers_of_a_policy_follow_its_strength() -> None:
    none, some, more = (effects(experiment(p=p)) for p in (0.0, 0.1, 0.5))
    assert none["text/changed"] == 0
    assert none["text/self_bleu"] == pytest.approx(1)
    assert none["text/words_ratio"] == none["text/characters_ratio"] == 1
    for name, sign in (("changed", 1), ("distinct_2", 1), ("self_bleu", -1), ("words_ratio", -1)):
        assert sign * none[f"text/{name}"] < sign * some[f"text/{name}"] < sign * more[f"text/{name}"]
    assert more["text/protected_lost"] == 0
    assert effects(experiment("random_insertion", p=0.3))["text/words_ratio"] == 1  # punctuation is no word
    assert effects(experiment("random_insertion", p=0.3, insert="vocabulary"))["text/words_ratio"] > 1.2


def test_negators_that_a_policy_may_take_are_seen_to_go() -> None:
    what = experiment(p=0.5)
    free = what.model_copy(update={"input": what.input.model_copy(update={"protect": Protect(negators=False)})})
    assert effects(what)["text/protected_lost"] == 0
    assert 0.2 < effects(free)["text/protected_lost"] < 0.8


def test_both_texts_of_a_pair_count_and_reconstruction_is_not_augmentation() -> None:
    rows = tiny.rows(100, seed=1, paired=True)
    found = effects(experiment("random_swap", p=1.0), rows)
    assert found["text/changed"] > 0.9
    untidy = rows.set_column(1, "text", [[f" {text}  " for text in rows["text"].to_pylist()]])
    normal = {"reconstruct": [{"name": "normalize"}], "augment": {"n_aug": 1, "policy": [[{"name": "identity"}]]}}
    assert effects(tiny.experiment(input=normal), untidy)["text/changed"] == 0


def test_without_augmentation_there_is_nothing_to_say() -> None:
    assert effects(experiment(n_aug=0)) == {}
    assert effects(tiny.experiment()) == {}


def test_a_trial_reports_it_once_and_a_resumed_one_not_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bothways.training.trial.CHECKPOINT_SHARE", 1e9)
    what, workspace = experiment("random_swap", p=0.5), Workspace()
    for report in tiny.trial(what, tmp_path, workspace).reports():
        if report.step == 10:
            break
    again = tiny.trial(what, tmp_path, workspace)
    rest = list(again.reports())
    told = [{name for name in report.metrics if name.startswith("text/")} for report in again.history]
    assert len(rest) == 2
    assert [len(names) for names in told] == [7, 0, 0, 0]
    assert again.history[0].metrics["text/changed"] > 0.5
    plain = next(tiny.trial(tiny.experiment(), tmp_path / "plain", workspace).reports())
    assert not any(name.startswith("text/") for name in plain.metrics)


def test_the_sample_is_bounded_and_takes_milliseconds() -> None:
    rows = tiny.rows(2000, seed=1)
    what = experiment("random_swap", p=0.1)
    long = what.model_copy(update={"optim": what.optim.model_copy(update={"steps": 1_000_000})})
    seen: list[int] = []
    statistics, original = policy.statistics(rows, "en"), Effects.of.__func__  # type: ignore[attr-defined]

    def counting(cls: Any, before: Any, *others: Any) -> Effects:
        seen.append(len(before))
        found: Effects = original(cls, before, *others)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_effects.Effects, "of", classmethod(counting))
        for one in (what, long):
            of_copies(rows, one, statistics)
    assert seen == [text_effects.LEAST, text_effects.MOST]
    best = min(_seconds(lambda: of_copies(rows, long, statistics)) for _ in range(5))
    assert best < 0.1


def _seconds(work: Any) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
