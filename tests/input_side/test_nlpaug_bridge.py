"""The bridge to nlpaug: which augmenters run, and that those behave like every other transform."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.errors import UserError
from bothways.input_side.nlpaug_repairs import NAMES, split
from bothways.registry import TRANSFORMS
from bothways.seeding import keys
from tests.nlpaug_table import CASES, CONTEXT, PAGE, TEXTS, Case, models, outcome, page, runs
from tests.text.test_sentences import HOSTILE


def test_the_page_says_what_the_table_says() -> None:
    assert PAGE.read_text("utf-8") == page()
    assert {case.augmenter for case in CASES} == set(NAMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models(tmp_path_factory.mktemp("models"))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.augmenter}-{case.shown}")
def test_the_table_is_true(case: Case, folder: Path) -> None:
    assert runs(case, folder) == case.runs


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES if c.runs], ids=lambda case: f"{case.augmenter}-{case.shown}")
def test_a_row_depends_on_its_own_key_only(case: Case, folder: Path) -> None:
    import torch

    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), float(torch.rand(1))
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    whole = outcome(case, folder)
    assert (random.random(), np.random.rand(), float(torch.rand(1))) == expected  # the generators were left alone
    assert outcome(case, folder) == whole
    transform = TRANSFORMS.get("nlpaug")(augmenter=case.augmenter, arguments=case.arguments(folder))
    backwards = CONTEXT.read(TEXTS[::-1], keys(0, np.arange(len(TEXTS)))[::-1])
    assert transform(backwards, CONTEXT).texts() == whole[::-1]


@pytest.mark.slow
def test_models_of_one_name_in_two_folders_are_two_models(tmp_path: Path) -> None:
    from nlpaug.model.word_stats import TfIdf

    found = []
    for word in ("alpha", "omega"):
        counts = TfIdf()
        counts.train([["a", word], ["a", "good", word]])
        (tmp_path / word / "model").mkdir(parents=True)
        counts.save(str(tmp_path / word / "model"))
        arguments = {"model_path": str(tmp_path / word / "model"), "action": "insert"}
        transform = TRANSFORMS.get("nlpaug")(augmenter="word.TfIdfAug", arguments=arguments)
        texts = transform(CONTEXT.read(["a good end"] * 20, keys(np.arange(20))), CONTEXT).texts()
        found.append({w for text in texts for w in text.lower().split()})
    assert "alpha" in found[0] and "omega" not in found[0]
    assert "omega" in found[1] and "alpha" not in found[1]


def test_flows_are_built_of_augmenters_by_name() -> None:
    steps = [{"augmenter": "char.KeyboardAug"}, {"augmenter": "char.RandomCharAug", "arguments": {"action": "swap"}}]
    case = Case(augmenter="flow.Sequential", arguments=lambda folder: {"flow": steps})
    whole = outcome(case, Path())
    assert whole != TEXTS
    assert outcome(case, Path()) == whole
    wrong = Case(augmenter="flow.Sequential", arguments=lambda folder: {"flow": [{"augmenter": "char.Keyboard"}]})
    with pytest.raises(UserError, match=r"nlpaug flow\.Sequential with arguments .*has no attribute 'Keyboard'"):
        outcome(wrong, Path())


def test_an_augmenter_that_changes_no_text_is_refused() -> None:
    case = Case(augmenter="sentence.LambadaAug", arguments=lambda folder: {"model_dir": "x"})
    with pytest.raises(UserError, match="it makes new texts from labels"):
        outcome(case, Path())


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(HOSTILE | st.just("x" * 3000) | st.just("?!" * 200), max_size=4))
def test_what_nlpaug_cannot_read_stays(texts: list[str]) -> None:
    for augmenter in ("char.KeyboardAug", "char.RandomCharAug"):
        after = outcome(Case(augmenter=augmenter, arguments=lambda folder: {}), Path(), texts)
        assert len(after) == len(texts)
        assert all(bool(new.strip()) >= bool(old.strip()) for old, new in zip(texts, after, strict=True))


def test_sentences_of_a_text_are_strings() -> None:
    assert split(" One. Two!  三。四？ ") == ["One.", "Two!", "三。", "四？"]
    assert split("") == [""]
