"""Rows of other domains in every batch: how many, which, and none at weight 0."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bothways import models
from bothways.batches import batching, mixing, planning
from bothways.config import Augment, Data
from bothways.config.domains import SampleMixing
from bothways.training.trial import Trial
from bothways.training.workspace import Workspace
from tests import tiny

MIX = {"data": {"mix": [{"source": "made in the test"}]}}


def side(**knobs: Any) -> dict[str, Any]:
    return {**MIX, "input": {"sample_mixing": knobs}}


def plan_of(trial: Trial) -> planning.Plan:
    return mixing.plan(trial.experiment, trial._dataset, trial._lengths, trial._classes, trial._workspace.remember)


def test_a_weight_is_a_share_of_whole_rows() -> None:
    shares = {weight: mixing.rows(SampleMixing(weight=weight), 16) for weight in (0, 0.001, 0.25, 0.3, 0.5, 0.999)}
    assert shares == {0: 0, 0.001: 1, 0.25: 4, 0.3: 5, 0.5: 8, 0.999: 15}


def test_the_temperature_makes_sources_of_different_sizes_alike() -> None:
    assert mixing.weights(SampleMixing(), [100, 400], None) is None

    def parts(temperature: float) -> float:
        found = mixing.weights(SampleMixing(temperature=temperature), [100, 400], None)
        assert found is not None
        return float(found[:100].sum() / found.sum())

    assert parts(2.0) == pytest.approx(10 / (10 + 20))
    assert parts(1e9) == pytest.approx(0.5)
    odds = np.r_[np.full(100, 2.0), np.arange(1.0, 401)]
    by_odds = mixing.weights(SampleMixing(temperature=2.0), [100, 400], odds)
    assert by_odds is not None
    assert by_odds[:100].sum() / by_odds.sum() == pytest.approx(1 / 3)  # odds count within a source
    assert by_odds[499] / by_odds[100] == pytest.approx(400)


def test_every_batch_has_its_share_of_others_and_own_rows_keep_their_epochs(
    tmp_path: Path, workspace: Workspace
) -> None:
    data = tiny.dataset(train=24, mixed=12)
    plan = plan_of(tiny.trial(tiny.experiment(**side(weight=0.25)), tmp_path, workspace, data))
    assert plan.row.shape == (20, 8)
    assert (plan.row[:, :6] < 24).all() and (plan.row[:, 6:] >= 24).all() and plan.row.max() < 36
    for part, size in ((plan.row[:, :6], 24), (plan.row[:, 6:], 12)):
        counts = np.bincount(part.ravel() - part.min())
        assert len(counts) == size and counts.max() - counts.min() <= 1
    alone = planning.plan(np.ones(24, np.int64), Augment(), batch_size=6, steps=20, seed=0)
    assert sorted(plan.row[:, :6].ravel()) == sorted(alone.row.ravel())


def test_weights_draw_rows_in_proportion_and_an_epoch_counts_a_rows_views() -> None:
    weights = np.array([0.0, 1.0, 2.0, 7.0, 0.0])
    lengths = np.array([3, 9, 4, 5, 6])
    plan = planning.plan(
        lengths, Augment(n_aug=1), batch_size=8, steps=500, seed=3, order=planning.Order(weights=weights)
    )
    shares = np.bincount(plan.row.ravel(), minlength=5) / plan.row.size
    assert shares == pytest.approx(weights / 10, abs=0.02)
    assert plan.copy.mean() == pytest.approx(0.5, abs=0.02)
    views = set(zip(plan.row.ravel(), plan.copy.ravel(), plan.epoch.ravel(), strict=True))
    assert len(views) == plan.row.size  # no view comes twice
    of_one = plan.epoch[(plan.row == 3) & (plan.copy == 1)]
    assert sorted(of_one) == list(range(len(of_one)))
    halves = [plan.share(rank, 2).row for rank in (0, 1)]
    assert np.array_equal(np.sort(np.hstack(halves), axis=1), np.sort(plan.row, axis=1))


def odds_of(ours: list[str], *others: list[str], **data: Any) -> batching.seeding.F64:
    table = tiny.rows(len(ours), seed=0).set_column(1, "text", pa.array(ours))
    mixed = tuple(pa.table({"text": texts}) for texts in others)
    return mixing.domain_odds(replace(tiny.dataset(), train=table, mixed=mixed), Data(source="made here", **data))


@pytest.mark.slow
def test_the_domain_classifier_prefers_rows_that_read_like_ours() -> None:
    ours = [f"the soup number {n} was salty and hot" for n in range(30)]
    other = [f"the actor number {n} plays a part in the film" for n in range(20)]
    like = [f"the actor number {n} eats a salty hot soup" for n in range(10)]
    odds = odds_of(ours, other, like)
    assert odds.shape == (30,)
    assert odds[20:].min() > odds[:20].max()
    assert np.array_equal(odds, odds_of(ours, other, like))
    chinese = odds_of(["这碗汤很咸"] * 8, ["那个演员很好"] * 8, ["这碗面很咸"] * 4, language="zh")
    assert chinese[8:].min() > chinese[:8].max()
    assert odds_of(ours[:1], other).tolist() == [1] * 20  # too few to learn anything from


def test_mixing_without_anything_to_mix_is_refused_at_once() -> None:
    with pytest.raises(ValidationError, match=r"weight is 0\.3, but data\.mix names no source"):
        tiny.experiment(input={"sample_mixing": {"weight": 0.3}})
    with pytest.raises(ValidationError, match="a batch of one row cannot be shared"):
        tiny.experiment(**side(weight=0.3), optim={"batch_size": 1})


@pytest.mark.slow
def test_weight_0_is_as_if_there_were_nothing_to_mix_in_to_the_last_bit(tmp_path: Path) -> None:
    def train(what: Any, data: Any, folder: str) -> tuple[list[dict[str, float]], str]:
        workspace = Workspace()
        reports = list(tiny.trial(what, tmp_path / folder, workspace, data).reports())
        weights = workspace.model(tiny.model_dir(), tiny.LABELS).module.state_dict()
        kept = [{k: v for k, v in report.metrics.items() if not k.startswith("time/")} for report in reports]
        return kept, models.digest(weights)

    plain = train(tiny.experiment(), tiny.dataset(), "plain")
    knobs = {"weight": 0.0, "temperature": 3.0, "weighting": "domain_classifier"}
    assert train(tiny.experiment(**side(**knobs)), tiny.dataset(mixed=20), "neutral") == plain
    assert train(tiny.experiment(**side(**{**knobs, "weight": 0.5})), tiny.dataset(mixed=20), "mixed") != plain
