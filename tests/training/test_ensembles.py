"""Soups and ensembles: what is averaged, what decides, what is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bothways import cli, data, ensembles, models
from bothways.errors import UserError
from bothways.predict import Predictor
from bothways.training.workspace import Workspace
from tests import tiny

pytestmark = pytest.mark.slow  # every test of them needs several trainings

TEXTS = ["it was a good film", "dull", "a great and lovely story", "bad music with an awful end"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trials of one seed, as a sweep leaves them; `004` reads text otherwise, `again-` is not of the search."""
    folder, workspace = tmp_path_factory.mktemp("sweep"), Workspace()
    lines = [f"{tiny.LABELS[row['label']]}\t{row['text']}" for row in tiny.rows(150, seed=4).to_pylist()]
    (folder / "rows.tsv").write_text("label\ttext\n" + "\n".join(lines) + "\n")
    arms: dict[str, dict[str, Any]] = {
        "000-control": {"optim": {"lr": 0.01}},
        "001-slow": {"optim": {"lr": 0.003}},
        "002-rdrop": {"optim": {"lr": 0.01}, "output": {"objectives": [{"name": "rdrop"}]}},
        "003-wrong": {"optim": {"lr": 0.3, "warmup": 0, "schedule": "constant"}},
        "004-normal": {"optim": {"lr": 0.01}, "input": {"reconstruct": [{"name": "normalize"}]}},
        "again-000-control-500": {"optim": {"lr": 0.01}, "seed": 500},
    }
    for name, parts in arms.items():
        optim = {"steps": 30, "evaluate_every": 30, "batch_size": 16, **parts.pop("optim")}
        where = {"source": str(folder / "rows.tsv"), "splits": {"train": 60, "selection": 30, "test": 30}}
        what = tiny.experiment(model={"dropout": 0.0}, data=where, optim=optim, **parts)
        trial = tiny.trial(what, folder / "trials" / name, workspace, data.load(what.data))
        list(trial.reports())
        trial.save()
    return folder


def trials(sweep: Path, *numbers: int) -> dict[str, Path]:
    found = sorted(sweep.glob("trials/[0-9]*/model"))
    return {found[n].parent.name: found[n] for n in numbers or range(4)}


def made(sweep: Path, out: Path, *numbers: int, **how: Any) -> ensembles.Made:
    return ensembles.make(
        trials(sweep, *numbers),
        load=data.load,
        **{"method": "uniform", "k": 9, "metric": "log_loss", "out": out, **how},
    )


def weights(model: Path) -> dict[str, torch.Tensor]:
    return dict(models.load_saved(model)[0].module.state_dict())


def test_a_uniform_soup_is_an_ordinary_model_with_the_mean_of_the_weights(sweep: Path, tmp_path: Path) -> None:
    found = made(sweep, tmp_path / "soup", 0, 1, 2)
    assert found.notes == ()
    assert set(found.members) == {"000-control", "001-slow", "002-rdrop"}
    parts, soup = [weights(sweep / "trials" / name / "model") for name in found.members], weights(found.directory)
    for name, value in soup.items():
        torch.testing.assert_close(value, sum(part[name] for part in parts) / 3, rtol=1e-3, atol=1e-4)
    assert max(float((soup[name] - parts[0][name]).abs().max()) for name in soup) > 1e-2
    models.export(found.directory, tmp_path / "plain")
    assert Predictor(tmp_path / "plain")(TEXTS) == Predictor(found.directory)(TEXTS)
    assert json.loads((found.directory / "soup.json").read_text())["members"] == list(found.members)

    dataset = data.load(models.read_about(found.directory).experiment.data)
    for table, metrics in ((dataset.selection, found.selection), (dataset.test, found.test)):
        said = Predictor(found.directory)(table["text"].to_pylist())
        right = [p.label == found_label for p, found_label in zip(said, labels(table), strict=True)]
        chosen = [p.probabilities[label] for p, label in zip(said, labels(table), strict=True)]
        assert metrics["accuracy"] == pytest.approx(np.mean(right))
        assert metrics["log_loss"] == pytest.approx(-np.log(chosen).mean())


def labels(table: Any) -> list[str]:
    return [tiny.LABELS[label] for label in table["label"].to_pylist()]


def test_a_greedy_soup_leaves_out_what_makes_it_worse(sweep: Path, tmp_path: Path) -> None:
    everything = made(sweep, tmp_path / "uniform")
    found = made(sweep, tmp_path / "greedy", method="greedy")
    assert found.candidates[-1].name == "003-wrong"
    assert "003-wrong" not in found.members
    best = found.candidates[0].metrics["log_loss"]
    assert found.selection["log_loss"] <= best < everything.selection["log_loss"]
    assert [c.metrics["log_loss"] for c in found.candidates] == sorted(c.metrics["log_loss"] for c in found.candidates)


def test_greedy_keeps_what_is_as_good_and_asks_once_for_each() -> None:
    asked = []

    def score(numbers: Any) -> tuple[float, ...]:
        asked.append(tuple(numbers))
        return ({(0,): 0.8, (0, 1): 0.7, (0, 2): 0.8, (0, 2, 3): 0.9}[tuple(numbers)],)

    assert ensembles.greedy(4, score) == [0, 2, 3]
    assert asked == [(0,), (0, 1), (0, 2), (0, 2, 3)]


def test_an_ensemble_is_the_mean_of_probabilities_and_stands_alone(sweep: Path, tmp_path: Path) -> None:
    found = made(sweep, tmp_path / "made", 0, 1, 2, 3, 4, method="top-k", k=3)
    assert found.members == tuple(c.name for c in found.candidates[:3])
    shutil.move(tmp_path / "made", tmp_path / "moved")
    together = ensembles.probabilities(ensembles.predictor(tmp_path / "moved"), TEXTS)
    alone = [ensembles.probabilities(Predictor(sweep / "trials" / name / "model"), TEXTS) for name in found.members]
    np.testing.assert_allclose(together, (alone[0] + alone[1] + alone[2]) / 3, rtol=1e-12)
    assert together.sum(axis=1) == pytest.approx(np.ones(4))
    for text in ("{", '{"members": []}', '{"members": ["../000-control"]}'):
        (tmp_path / "moved" / "ensemble.json").write_text(text)
        with pytest.raises(UserError, match=r"ensemble\.json"):
            ensembles.predictor(tmp_path / "moved")


def test_a_soup_takes_only_models_that_read_text_the_same_way(sweep: Path, tmp_path: Path) -> None:
    found = made(sweep, tmp_path / "soup", 0, 4)
    assert len(found.members) == 1
    assert "reads text otherwise" in found.notes[0]


def test_what_cannot_be_compared_is_one_clear_line(sweep: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no saved model"):
        ensembles.make({}, load=data.load, method="greedy", k=2, metric="accuracy", out=tmp_path / "a")
    with pytest.raises(UserError, match="exists already"):
        made(sweep, tmp_path)
    other = tmp_path / "other"
    shutil.copytree(sweep / "trials" / "000-control" / "model", other)
    about = json.loads((other / "model.json").read_text())
    about["experiment"]["data"]["split_seed"] = 1
    (other / "model.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="other data"):
        ensembles.make(
            {**trials(sweep, 0), "other": other},
            load=data.load,
            method="greedy",
            k=2,
            metric="accuracy",
            out=tmp_path / "b",
        )


def test_the_command_makes_one_of_a_sweep_that_predict_can_read(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["--method", "top-k", "--k", "2", "--metric", "macro_f1"]
    assert cli.run(["ensemble", str(sweep), "--out", str(tmp_path / "out"), *how]) == 0
    shown = capsys.readouterr().out
    assert "again-" not in shown
    assert "top-k of 2" in shown
    assert f"model    {tmp_path / 'out'}" in shown
    assert cli.run(["predict", "--model", str(tmp_path / "out"), "a good film", "--format", "json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert said["value"] == said["label"] in tiny.LABELS
    seeds = ["--trials", "*000-control*", "--format", "json"]
    assert cli.run(["ensemble", str(sweep), "--out", str(tmp_path / "seeds"), *seeds]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["model"] for row in rows[:-1]} == {"000-control", "again-000-control-500"}
    for wrong in (["--trials", "x*"], ["--metric", "recal"]):
        assert cli.run(["ensemble", str(sweep), "--out", str(tmp_path / "no"), *wrong]) == 2
    assert not (tmp_path / "no").exists()
