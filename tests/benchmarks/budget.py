"""What a search costs in optimiser steps, and what it finds: every trial to its end, against stopping the hopeless.

Both sides search the same space with the same sampler, data and seeds, one trial at a time, through the same proposals
(`PointSearch`) and the scheduler that `bothways tune` uses (`SparingASHA`, with its defaults); only one side listens to
it, has fewer trials, and spends the other half of its steps as `bothways tune` does (`sweep`): its finalists and the
control are trained again with fresh seeds, and the best mean on the selection rows wins. The other side, `full`, takes
the best last look; `full_again` is what it would choose with the same second round. Of a short training the seed says
as much as most knobs do: the best of 60 trials of one seed was lucky with that seed.

The control and the winners are then trained again with seeds that nobody has chosen by, and scored on test rows that no
search has seen, by the metric that was searched for and by accuracy. Counted are all steps of our side, also those of
stopped trials and of finalists, against those of the full search alone; the last trainings, the same on all sides, are
not.

A training is a function of its experiment, so both sides read it from one table: an experiment that both of them
propose is trained once, and its prefix up to a stop is what a stopped training would have reported. `--table` keeps the
table, so that a second run only replays.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import measuring
import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from bothways import analysis, data, spaces
from bothways.assets import resolve
from bothways.config import Experiment, Search
from bothways.config.goals import Goals
from bothways.edges import fresh
from bothways.edges.hub import Outcome
from bothways.edges.local import OneWorker, execute
from bothways.edges.ray_tune import PointSearch, sampler, scheduler, trial_id
from bothways.edges.record import TrialRecord
from bothways.edges.sweep import finalists_of, winner_of
from bothways.results import Estimate, Report
from bothways.training.trial import Diverged, Scored, Trial
from bothways.training.workspace import Workspace

SPACE = Path(__file__).parents[2] / "search_spaces" / "joint.yaml"
MORE = """
optim.lr: {log: [1e-5, 1e-3]}
optim.head_lr: {log: [1e-4, 1e-2]}
output.trainable.name: [full, head]
"""
"""Knobs beside those of the joint space, some settings of which are bad: a search has to find out which."""
GOALS = Goals(metric="selection/log_loss", mode="min")
METRIC = GOALS.metric
LIMIT = 1 / 5


def encoder(layers: int) -> str:
    """The directory of MiniLM-L6 with its first `layers` layers only."""
    folder = Path(tempfile.gettempdir()) / f"bothways-minilm-l{layers}"
    if not (folder / "config.json").exists():
        whole = resolve("asset:minilm-l6")
        model = AutoModel.from_pretrained(whole)
        model.encoder.layer = model.encoder.layer[:layers]
        model.config.num_hidden_layers = layers
        AutoTokenizer.from_pretrained(whole).save_pretrained(folder)
        model.save_pretrained(folder)
    return str(folder)


def base(steps: int, layers: int) -> Experiment:
    """300 newswire stories to learn from, 96 to choose by, 1,000 to judge by; a look every 16th part of the steps."""
    return Experiment(
        data={"source": "asset:reuters_r8", "splits": {"train": 300, "selection": 96, "test": 1000}},
        model={"source": encoder(layers), "max_length": 32},
        optim={"steps": steps, "batch_size": 8, "lr": 2e-4, "head_lr": 2e-3, "evaluate_every": max(1, steps // 16)},
    )


@dataclass
class Table:
    """Experiments with what they reported: step → metrics. `trained`: steps that were really taken, not replayed."""

    file: Path | None
    dataset: data.Dataset
    known: dict[str, list[tuple[int, dict[str, float]]]] = field(default_factory=dict)
    trained: int = 0
    scored: dict[tuple[str, int], Scored] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.workspace = Workspace()
        if self.file and self.file.exists():
            for line in self.file.read_text().splitlines():
                kept = json.loads(line)
                self.known[kept["experiment"]] = [(step, metrics) for step, metrics in kept["reports"]]

    def reports(self, experiment: Experiment) -> Iterator[tuple[int, dict[str, float]]]:
        """The experiment's reports until the caller stops asking; none more when it diverges."""
        found = self.known.get(experiment.digest, [])
        yield from found
        if found and (found[-1][0] == experiment.optim.steps or found[-1][1] == {}):
            return
        with tempfile.TemporaryDirectory() as folder:
            trial = self.trial(experiment, Path(folder))
            try:
                with closing(trial.reports()) as reports:  # type: ignore[type-var]
                    for number, report in enumerate(reports):
                        if number < len(found):
                            continue
                        found = self.known[experiment.digest] = [*found, (report.step, dict(report.metrics))]
                        self.trained += experiment.optim.evaluate_every
                        yield found[-1]
            except Diverged:
                self.known[experiment.digest] = [*found, (found[-1][0] if found else 0, {})]
            finally:
                self.keep(experiment)

    def keep(self, experiment: Experiment) -> None:
        if self.file:
            with self.file.open("a") as opened:
                kept = {"experiment": experiment.digest, "reports": self.known.get(experiment.digest, [])}
                opened.write(json.dumps(kept) + "\n")

    def trial(self, experiment: Experiment, directory: Path) -> Trial:
        return Trial(
            experiment,
            self.dataset,
            collective=OneWorker(),
            execute=execute,
            workspace=self.workspace,
            directory=directory,
        )

    def final(self, experiment: Experiment, seed: int) -> Scored:
        """The experiment, trained to its end with another seed, on the test rows."""
        if (experiment.digest, seed) not in self.scored:
            optim = experiment.optim.model_copy(update={"evaluate_every": experiment.optim.steps})
            with tempfile.TemporaryDirectory() as folder:
                trial = self.trial(experiment.model_copy(update={"seed": seed, "optim": optim}), Path(folder))
                for _ in trial.reports():
                    pass
                self.scored[experiment.digest, seed] = trial.score_test()
        return self.scored[experiment.digest, seed]

    def record(self, name: str, experiment: Experiment, point: spaces.Point) -> TrialRecord:
        """The experiment, trained to its end, as a sweep records it."""
        trial = TrialRecord(name, experiment.spec(), point)
        for step, metrics in self.reports(experiment):
            if metrics:
                trial.reports.append(Report(step=step, steps=experiment.optim.steps, metrics=metrics, seconds=0.0))
        trial.outcome = ended(trial)
        return trial


def ended(trial: TrialRecord) -> Outcome:
    """How a trial that was not stopped has ended: before its last step it diverged."""
    finished = bool(trial.reports) and trial.reports[-1].step == trial.reports[-1].steps
    return Outcome(
        trial_id=trial.trial_id, status="finished" if finished else "failed", model_dir="-" if finished else ""
    )


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """`steps`: of the finalists' second round."""

    trial: TrialRecord
    steps: int

    @property
    def experiment(self) -> Experiment:
        return Experiment(**self.trial.experiment)


def taken(trials: Sequence[TrialRecord]) -> int:
    """The optimiser steps of trials."""
    return sum(trial.reports[-1].step for trial in trials if trial.reports)


def search(settings: Search, space: spaces.Space, what: Experiment, table: Table, *, stops: bool) -> list[TrialRecord]:
    """The search of `settings.trials` trials, one at a time; without `stops` every trial goes to its end."""
    first = space.first_points(what)
    proposals = PointSearch(space, first=first, past=[], goals=GOALS, sampler=sampler(settings))
    asha = scheduler(settings, what.optim.steps, GOALS)
    trials = []
    for name in map(str, range(settings.trials)):
        config = proposals.suggest(name)
        tuned = SimpleNamespace(trial_id=name, config=config)
        asha.on_trial_add(None, tuned)
        experiment = spaces.apply(what, config["point"])
        trial = TrialRecord(trial_id(config["number"], config["point"]), experiment.spec(), config["point"])
        result: dict[str, Any] = {}
        with closing(table.reports(experiment)) as reports:  # type: ignore[type-var]
            for step, metrics in reports:
                if not metrics:  # it diverged
                    break
                trial.reports.append(Report(step=step, steps=what.optim.steps, metrics=metrics, seconds=0.0))
                result = {"step": step, METRIC: metrics[METRIC]}
                proposals.on_trial_result(name, result)
                if stops and asha.on_trial_result(None, tuned, result) == asha.STOP and step < what.optim.steps:
                    trial.outcome = Outcome(trial_id=trial.trial_id, status="stopped")
                    break
        trial.outcome = trial.outcome or ended(trial)
        status = trial.outcome.status
        told = {} if status == "failed" else result if status == "stopped" else {**result, "ended": status}
        proposals.on_trial_complete(name, told)
        trials.append(trial)
    return trials


def choose(settings: Search, trials: list[TrialRecord], table: Table) -> Chosen:
    """What a sweep chooses of its trials, after `settings.finalist_seeds` fresh seeds of its finalists."""
    plan: Any = SimpleNamespace(search=settings, goals=GOALS)
    record: Any = SimpleNamespace(searched=trials, trials={})
    best, *others = finalists = finalists_of(record, plan)
    if not others:
        return Chosen(trial=best, steps=0)
    again = []
    for trial in finalists:
        experiment = Experiment(**trial.experiment)
        seeds = [experiment.seed + fresh.FINAL + k for k in range(settings.finalist_seeds)]
        rerun = [
            table.record(f"again-{trial.trial_id}-{seed}", experiment.model_copy(update={"seed": seed}), trial.knobs)
            for seed in seeds
        ]
        record.trials.update({one.trial_id: one for one in rerun})
        again.append([one.trial_id for one in rerun if one.outcome and one.outcome.status == "finished"])
    steps = taken(list(record.trials.values()))
    return Chosen(trial=winner_of(record, plan, finalists, again), steps=steps)


def judged(arms: dict[str, Experiment], table: Table, seeds: int) -> dict[str, Any]:
    """How each arm scores on the test rows with so many fresh seeds, and ours less the others, paired."""
    scored = {
        name: [table.final(experiment, experiment.seed + fresh.CONFIRM + k) for k in range(seeds)]
        for name, experiment in arms.items()
    }
    hits = {name: np.array([one.hits for one in found]) for name, found in scored.items()}
    losses = {name: np.array([[one.metrics["log_loss"]] for one in found]) for name, found in scored.items()}
    others = [name for name in arms if name != "ours"]
    return {
        "accuracy": {name: str(analysis.estimate(found)) for name, found in hits.items()},
        "accuracy_ours_minus": {name: str(analysis.difference(hits["ours"], hits[name])) for name in others},
        "log_loss": {name: round(float(found.mean()), 3) for name, found in losses.items()},
        "log_loss_ours_minus": {name: plain(analysis.difference(losses["ours"], losses[name])) for name in others},
    }


def plain(found: Estimate) -> str:
    """A mean and its interval, of what is no share."""
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--trials", type=int, default=60, help="of the search that stops none")
    options.add_argument("--ours", type=int, default=12, help="trials of the search that stops the hopeless")
    options.add_argument("--steps", type=int, default=48, help="optimiser steps of a trial")
    options.add_argument(
        "--layers", type=int, default=2, help="of MiniLM's six: few, so that 60 full trainings take minutes"
    )
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the searches")
    options.add_argument("--fresh", type=int, default=5, help="seeds with which winners are trained again")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--table", type=Path)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)

    what = base(chosen.steps, chosen.layers)
    table = Table(chosen.table, data.load(what.data))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "space.yaml").write_text(SPACE.read_text() + MORE)
        space = spaces.load_space(Path(folder) / "space.yaml")
    for seed in chosen.seeds:
        settings = Search(space="", metric="log_loss", trials=chosen.trials, seed=seed)
        sparing = settings.model_copy(update={"trials": chosen.ours})
        every = search(settings, space, what, table, stops=False)
        some = search(sparing, space, what, table, stops=True)
        full = choose(settings.model_copy(update={"finalist_seeds": 0}), every, table)
        arms = {"full": full, "full_again": choose(settings, every, table), "ours": choose(sparing, some, table)}
        experiments = {"control": what} | {name: arm.experiment for name, arm in arms.items()}
        steps = taken(some) + arms["ours"].steps
        measuring.row(
            what=f"optimiser steps of a search: {chosen.ours} trials with stops and finalists, {chosen.trials} without",
            unit="steps",
            ours=steps,
            peer=taken(every),
            ratio=steps / taken(every),
            limit=LIMIT,
            stopped=sum(trial.outcome is not None and trial.outcome.status == "stopped" for trial in some),
            finalist_steps={name: arm.steps for name, arm in arms.items()},
            search_seed=seed,
            selection={name: arm.trial.value(METRIC) for name, arm in arms.items()},
            test=judged(experiments, table, chosen.fresh),
            points={name: dict(arm.trial.knobs) for name, arm in arms.items()},
        )


if __name__ == "__main__":
    main()
