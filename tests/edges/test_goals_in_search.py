"""Constraints and several objectives in the search: what the sampler is told, what is stopped, who may win."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bothways import spaces
from bothways.config import Experiment, Pipeline, Search
from bothways.config.goals import Bound, Goals
from bothways.errors import UserError
from bothways.results import Report

pytestmark = pytest.mark.ray

BASE = Experiment(data={"source": "unused"}, optim={"steps": 90, "lr": 1e-4})
SPACE = "optim.lr: {log: [1e-6, 1e-2]}\ncontrol: {optim.lr: 1e-4}\n"
SCORE, LOST, VARIETY = "selection/accuracy", "text/protected_lost", "text/distinct_2"
BOUND = Goals(metric=SCORE, mode="max", bounds={LOST: Bound(max=0.1)})
PARETO = replace(BOUND, also={VARIETY: "max"})


def proposals(folder: Path, goals: Goals, past: Any = (), first: Any = ()) -> Any:
    from bothways.edges.ray_tune import PointSearch, sampler

    (folder / "space.yaml").write_text(SPACE)
    space = spaces.load_space(folder / "space.yaml")
    return PointSearch(space, first=first, past=past, goals=goals, sampler=sampler(Search(space="", trials=40)))


def told(step: int, score: float, lost: float = 0.0, variety: float = 0.5, **more: Any) -> dict[str, Any]:
    return {"step": step, SCORE: score, LOST: lost, VARIETY: variety, **more}


def test_the_sampler_hears_of_broken_constraints_of_finished_and_of_stopped_trials(tmp_path: Path) -> None:
    from optuna.trial import TrialState

    search = proposals(tmp_path, BOUND)
    for name, last in {
        "a": told(90, 0.6, 0.4, ended="finished"),
        "b": told(90, 0.5, ended="finished"),
        "c": told(10, 0.9, 0.3),
    }.items():
        search.suggest(name)
        search.on_trial_complete(name, last)
    one, other, stopped = search._ot_study.trials
    assert one.constraints == {LOST: pytest.approx(0.3)}
    assert other.constraints == {LOST: pytest.approx(-0.1)}
    assert (stopped.state, stopped.constraints) == (TrialState.PRUNED, {LOST: pytest.approx(0.2)})
    assert search._ot_study.best_trial.number == 1


@pytest.mark.parametrize("goals", [BOUND, PARETO])
def test_proposals_keep_away_from_what_breaks_a_constraint(tmp_path: Path, goals: Goals) -> None:
    """The score grows with the rate, but above 1e-4 more and more protected words are lost."""
    import math

    def proposed(goals: Goals) -> list[float]:
        search, rates = proposals(tmp_path, goals), []
        for number in range(40):
            rates.append(search.suggest(str(number))["point"]["optim.lr"])
            grown = (math.log10(rates[-1]) + 6) / 4
            copies = {"lost": max(0.0, grown - 0.4), "variety": grown}
            search.on_trial_complete(str(number), told(90, grown, **copies, ended="finished"))
        assert all(trial.params["optim.lr"] <= 1e-4 for trial in search._ot_study.best_trials) == bool(goals.bounds)
        return rates[10:]

    kept = sum(rate <= 1.1e-4 for rate in proposed(goals))
    assert kept >= 15 >= 3 * sum(rate <= 1.1e-4 for rate in proposed(replace(goals, bounds={})))


def test_with_several_objectives_stopped_and_failed_trials_are_told_as_unfinished(tmp_path: Path) -> None:
    from bothways.edges.ray_tune import UNFINISHED

    search = proposals(tmp_path, PARETO)
    for name in "abcd":
        search.suggest(name)
    search.on_trial_result("a", told(10, 0.4))
    search.on_trial_complete("a", {"step": 90, SCORE: 0.6, "ended": "finished"})  # copies are told of once, at first
    search.on_trial_complete("b", told(10, 0.9, variety=0.9))
    search.on_trial_complete("c", told(40, 0.9, variety=0.9))
    search.on_trial_complete("d", {"step": 0, SCORE: -1e9, "ended": "failed"})
    finished, early, late, failed = search._ot_study.trials
    assert finished.values == [0.6, 0.5]
    assert early.values == late.values == [0.9, 0.9]
    assert 0 < late.constraints[UNFINISHED] < early.constraints[UNFINISHED] < failed.constraints[UNFINISHED]
    assert [trial.number for trial in search._ot_study.best_trials] == [0]


def test_a_resumed_search_tells_the_sampler_what_the_first_one_did(tmp_path: Path) -> None:
    from bothways.edges.hub import Job, Outcome
    from bothways.edges.record import TrialRecord
    from bothways.edges.sweep import _past

    first = proposals(tmp_path, PARETO)
    record = Recorded()
    for number, (last, status) in enumerate([(told(90, 0.6, 0.4), "finished"), (told(10, 0.5), "stopped")]):
        point = first.suggest(str(number))["point"]
        record.searched.append(TrialRecord(f"{number:03d}-x", {}, point, outcome=Outcome(trial_id="", status=status)))  # type: ignore[arg-type]
        begun = report(5, {**{k: v for k, v in last.items() if k != "step"}, SCORE: 0.1})
        record.searched[-1].reports += [begun, report(last["step"], {SCORE: last[SCORE]})]
        first.on_trial_result(str(number), {"step": 5, **begun.metrics})
        ended = {"ended": "finished"} if status == "finished" else {}
        first.on_trial_complete(str(number), {"step": last["step"], SCORE: last[SCORE], **ended})
    second = proposals(tmp_path, PARETO, past=_past(record, plan(tmp_path, PARETO)))  # type: ignore[arg-type]
    assert [(t.params, t.values, t.constraints) for t in second._ot_study.trials] == [
        (t.params, t.values, t.constraints) for t in first._ot_study.trials
    ]
    assert second.suggest("next")["number"] == 2
    assert Job(trial_id="", experiment={}, directory="").controls == ()


def decision(scheduler: Any, number: int, result: dict[str, Any]) -> str:
    from types import SimpleNamespace

    trial = SimpleNamespace(trial_id=str(number), config={"number": number})
    scheduler.on_trial_add(None, trial)
    return str(scheduler.on_trial_result(None, trial, result))


def test_a_trial_whose_copies_break_a_constraint_is_stopped_at_once_and_fills_no_rung() -> None:
    from bothways.edges.ray_tune import Past, scheduler

    def asha(past: Any = ()) -> Any:
        return scheduler(Search(space=""), 64, BOUND, past)

    one = asha()
    assert decision(one, 1, told(4, 0.99, lost=0.2)) == "STOP"
    assert decision(one, 0, told(4, 0.1, lost=0.2)) == "CONTINUE", "the control is asked nothing"
    assert decision(one, 2, told(64, 0.9, lost=0.2)) == "CONTINUE", "it had ended"
    for number in range(3, 9):
        decision(one, number, told(16, 0.99, lost=0.2))
    assert decision(one, 9, told(16, 0.5)) == "CONTINUE", "it was compared with trials that cannot win"
    lost = [Past(number=n, point={}, status="stopped", curve={16: 0.99}, metrics={LOST: 0.2}) for n in range(1, 9)]
    assert decision(asha(lost), 9, told(16, 0.5)) == "CONTINUE"
    assert decision(asha([replace(past, metrics={LOST: 0.0}) for past in lost]), 9, told(16, 0.5)) == "STOP"


class Recorded:
    """The part of a record that choosing reads."""

    def __init__(self, *trials: Any) -> None:
        self.searched: list[Any] = list(trials)


def report(step: int, metrics: dict[str, float]) -> Report:
    return Report(step=step, steps=90, metrics=metrics, seconds=0.0)


def ended(number: int, status: str = "finished", **metrics: float) -> Any:
    from bothways.edges.hub import Outcome
    from bothways.edges.record import TrialRecord

    outcome = Outcome(trial_id="", status=status, model_dir="m" if status == "finished" else "")  # type: ignore[arg-type]
    copies = {LOST: metrics.get("lost", 0.0), VARIETY: metrics.get("variety", 0.5)}
    first, last = report(10, {SCORE: 0.1, **copies}), report(90, {SCORE: metrics["score"]})
    return TrialRecord(f"{number:03d}-x", {}, {}, reports=[first, last], outcome=outcome)


def plan(folder: Path, goals: Goals, **search: Any) -> Any:
    from bothways.edges.sweep import Plan

    pipeline = Pipeline(name="x", experiment=BASE, search={"space": "s", "finalists": 2, **search})
    (folder / "space.yaml").write_text(SPACE)
    space = spaces.load_space(folder / "space.yaml")
    assert pipeline.search is not None
    return Plan(pipeline=pipeline, search=pipeline.search, space=space, directory=folder, goals=goals)


def finalists(folder: Path, goals: Goals, *trials: Any, **search: Any) -> list[int]:
    from bothways.edges.sweep import finalists_of

    return [trial.number for trial in finalists_of(Recorded(*trials), plan(folder, goals, **search))]  # type: ignore[arg-type]


def test_only_who_keeps_the_constraints_may_win_and_the_control(tmp_path: Path) -> None:
    from bothways.edges.sweep import _unmet

    control = ended(0, score=0.5, lost=0.5)
    best, good, fair = ended(1, score=0.9, lost=0.2), ended(2, score=0.8), ended(3, score=0.7)
    worse, stopped = ended(4, score=0.6), ended(5, "stopped", score=0.99)
    trials = (control, best, good, fair, worse, stopped)
    assert finalists(tmp_path, BOUND, *trials) == [2, 3, 0]
    assert finalists(tmp_path, BOUND, *trials, finalist_seeds=0) == [2]
    assert finalists(tmp_path, replace(BOUND, bounds={}), *trials) == [1, 2, 0]
    assert _unmet(Recorded(*trials), plan(tmp_path, BOUND)) == ""  # type: ignore[arg-type]
    varied = ended(6, score=0.6, variety=0.9)
    assert finalists(tmp_path, PARETO, *trials, varied) == [2, 6, 0], "0.7 is not on the front: 0.8 is as various"


def test_where_nothing_keeps_the_constraints_the_control_stands_and_it_is_said(tmp_path: Path) -> None:
    from bothways.edges.sweep import _unmet

    lost = (ended(1, score=0.9, lost=0.4), ended(2, "stopped", score=0.9, lost=0.25))
    for control in (ended(0, score=0.5), ended(0, score=0.5, lost=0.9)):
        for seeds in (0, 2):
            assert finalists(tmp_path, BOUND, control, *lost, finalist_seeds=seeds) == [0]
        said = _unmet(Recorded(control, *lost), plan(tmp_path, BOUND))  # type: ignore[arg-type]
        assert said.startswith("No trial kept the constraints (text/protected_lost at most 0.1), so the control stands")
        assert said.endswith("The nearest was 002-x with text/protected_lost 0.25.")
    beaten = (ended(0, score=0.9, variety=0.9), ended(1, score=0.8))  # it kept them, and is not on the front
    assert finalists(tmp_path, PARETO, *beaten) == [0]
    assert _unmet(Recorded(*beaten), plan(tmp_path, PARETO)) == ""  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"has not finished, and nothing else can be chosen\. No trial kept"):
        finalists(tmp_path, BOUND, ended(0, "failed", score=0.5), *lost)


def test_a_search_with_goals_is_known_again_when_it_is_resumed_and_another_one_is_refused(tmp_path: Path) -> None:
    from bothways.edges.sweep import _same_sweep
    from tests import tiny

    goals = {"constraints": {LOST: {"max": 0}}, "also": [{"metric": VARIETY}]}
    first = _same_sweep(plan(tmp_path, PARETO, **goals), tiny.dataset())
    assert _same_sweep(plan(tmp_path, PARETO, **goals, trials=99), tiny.dataset()) == first
    with pytest.raises(UserError, match="was begun with another search"):
        _same_sweep(plan(tmp_path, PARETO, **{**goals, "constraints": {LOST: {"max": 1}}}), tiny.dataset())


@pytest.mark.slow
def test_a_sweep_with_a_constraint_and_two_objectives_reports_its_front(tmp_path: Path) -> None:
    from tests.edges.test_sweep import runs, tune, write

    file = write(tmp_path, steps=20)
    goals = (
        "constraints: {text/protected_lost: {max: 0.0}, text/fidelity: {min: 0.05}}, also: [{metric: text/distinct_2}],"
    )
    text = file.read_text().replace("{space: space.yaml,", "{space: space.yaml, " + goals)
    assert "text/distinct_2" in text
    file.write_text(text)
    space = tmp_path / "space.yaml"
    space.write_text(
        space.read_text().replace("n_aug: 0, ", "n_aug: 0, input.protect.negators: true, ")
        + "input.protect.negators: [true, false]\n"
    )
    done = tune(file)
    out, _ = done.communicate(timeout=900)
    assert done.returncode == 0, out

    sweep = tmp_path / "runs" / "tiny-001"
    lines = [line.split("\t") for line in (sweep / "front.tsv").read_text().splitlines()]
    assert lines[0] == ["trial", SCORE, VARIETY, LOST, "text/fidelity"]
    assert len(lines) > 1
    assert {row[3] for row in lines[1:]} == {"0"}
    assert "no other one is as good as in all objectives" in (sweep / "result.md").read_text()
    events = [json.loads(line) for line in (sweep / "events.jsonl").read_text().splitlines()]
    first: dict[str, dict[str, float]] = {}
    steps: dict[str, int] = {}
    for event in events:
        if event["kind"] == "report" and event["trial_id"][0].isdigit():
            first.setdefault(event["trial_id"], event["report"]["metrics"])
            steps[event["trial_id"]] = event["report"]["step"]
    assert len(first) == 6
    assert all(0 <= metrics["text/fidelity"] <= 1 for metrics in first.values())
    assert first["000-control"]["text/fidelity"] == 1
    broken = {name for name, metrics in first.items() if metrics[LOST] > 0}
    assert {steps[name] for name in broken} <= {5}, "a trial that cannot win went on"
    assert not broken & {row[0] for row in lines[1:]}
    parents, _ = runs(tmp_path)
    assert parents[0].data.metrics["cost/screen_steps"] == 40
    assert len(json.loads((sweep / "controls.json").read_text())) == 2

    again = tune(file, "--resume", "search.trials=7")
    out, _ = again.communicate(timeout=900)
    assert again.returncode == 0, out
    trials = {
        e["trial_id"]
        for e in map(json.loads, (sweep / "events.jsonl").read_text().splitlines())
        if e["kind"] == "begin"
    }
    assert sum(name[0].isdigit() for name in trials) == 7
