"""One trial: an experiment's data read, its model trained, reported, checkpointed, scored and saved.

Edges differ in who the workers are (`Collective`) and where text is transformed (`Execute`); the trial is the same.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from bothways import models, policy, seeding, tokenization, training
from bothways.batches import batching, mixing, planning
from bothways.config import Experiment, InputSide, OutputSide
from bothways.contracts import FEEDBACK_PARTS, Batch, Beside, Collective, Execute
from bothways.errors import UserError
from bothways.policy import effects as text_effects
from bothways.pretraining import preparing
from bothways.results import Report
from bothways.training import Diverged, answers, arithmetic, checkpoints, generation, teachers
from bothways.training.workspace import Workspace

if TYPE_CHECKING:
    from bothways.data import Dataset

__all__ = ["Diverged", "Scored", "Trial"]

CHECKPOINT_SHARE = 0.05
"""The largest share of a trial's time that goes into checkpoints: a slow disk gets fewer, a short trial none."""
LENGTHS_ROWS = 8192
"""Rows whose tokens are counted at once: where each stands is known meanwhile, and that takes memory."""
CHEAP_S = 0.2
"""What a checkpoint may cost to be written at a trial's first report, however short the trial."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Metrics on the test rows, and for each row, in their order, how right it was, from 0 to 1."""

    metrics: Mapping[str, float]
    hits: tuple[float, ...]


class Trial:
    """A trial of `experiment` on `dataset` by the workers of `collective`; every one of them makes this same object.

    `directory`: this trial's own; holds its checkpoints and its saved model. A trial that finds a checkpoint there goes
    on from it. `asked`: what its first report is to say of its copies. `notes`: one line for everything its user should
    know. `history`: all reports, also those made before a restart. `sums`: the task's over the selection rows at the
    last of them, None before the first.

    Raises `UserError`, when the directory holds another experiment's checkpoint too.
    """

    def __init__(
        self,
        experiment: Experiment,
        dataset: Dataset,
        *,
        collective: Collective,
        execute: Execute,
        workspace: Workspace,
        directory: Path,
        asked: text_effects.Asked | None = None,
    ) -> None:
        self._created = time.monotonic()
        self._started = 0.0
        self.experiment = experiment
        self.notes: list[str] = []
        self.history: list[Report] = []
        self.sums: torch.Tensor | None = None
        self._dataset = dataset
        self._collective = collective
        self._execute = execute
        self._workspace = workspace
        self._directory = directory
        self._asked = asked
        self._stored: dict[str, torch.Tensor] | None = None
        self._progress: training.Progress | None = None
        policy.check(experiment.input, experiment.data.language)
        self._paired = dataset.train["pair"].null_count < dataset.train.num_rows
        seed = seeding.integer(experiment.seed, "trial", collective.rank)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # for libraries that draw from it: we never do
        torch.manual_seed(seed)
        model = experiment.model
        self._bundle = workspace.model(model.source, dataset.labels, self._vocabulary(), experiment.task)
        self._bundle.check_length(model)
        prepare = workspace.remember("prepared", preparing.Memory)
        self._prepared = prepare(experiment, dataset, self._bundle, collective, workspace.say)
        models.reset(
            self._bundle,
            labels=dataset.labels,
            dropout=model.dropout,
            seed=experiment.seed,
            start=self._prepared.weights if self._prepared else None,
        )
        if experiment.optim.precision == "bf16" and not arithmetic.multiplies_bf16(workspace.device):
            self.notes.append("no bf16 arithmetic here: precision bf16 is many times slower than fp32; auto avoids it")
        self._taught = teachers.Teaching(experiment, self._bundle, dataset.labels, self._paired, workspace.remember)
        self._state = self._resume()

    def _vocabulary(self) -> tokenization.Vocabulary | None:
        """What is kept of the model's vocabulary; None for all of it. The same for every fold of the data."""
        model = self.experiment.model
        key = ("vocabulary", self._dataset.digest, model.source, model.vocabulary)
        return self._workspace.remember(key, lambda: preparing.vocabulary(self.experiment, self._dataset))

    # -- training ---------------------------------------------------------------------------------------------------

    def reports(self) -> Iterator[Report]:
        """Train, yielding a report every `evaluate_every` steps. Closing it stops the trial where it is.

        A checkpoint of the reported state is on disk before the report is seen, unless checkpoints would take more than
        `CHECKPOINT_SHARE` of the time. The first report has `time/start_s`, what went by before the first step, and
        `text/…`, what the policy does to the trial's copies (see `policy.effects`).
        """
        experiment, began = self.experiment, time.monotonic()
        before = self.history[-1].seconds if self.history else 0.0
        saving = self._workspace.checkpoint_s
        saved_at = began if saving > CHEAP_S else -np.inf
        progresses = training.train(
            self._bundle.module,
            task=generation.scored(experiment.task, self._bundle, "selection"),
            output=self._output_side(),
            optim=experiment.optim,
            seed=experiment.seed,
            rows=training.Rows(self._batches, self._evaluation_batches("selection")[0]),
            collective=self._collective,
            state=self._state,
            speaker=answers.Speaker(experiment.task, self._bundle, self._dataset.labels, self._workspace),
        )
        self._state = None
        with closing(progresses):  # type: ignore[type-var]
            for number, progress in enumerate(progresses):
                self._progress, self.sums = progress, progress.sums
                first = {} if number else {"time/start_s": self._started - self._created}
                if not self.history:
                    first |= self._effects() | (self._prepared.metrics() if self._prepared else {})
                now = time.monotonic()
                report = Report(
                    step=progress.step,
                    steps=experiment.optim.steps,
                    metrics={**progress.metrics, **first},
                    seconds=before + now - began,
                )
                self.history.append(report)
                if (now - saved_at) * CHECKPOINT_SHARE >= saving:
                    self.checkpoint()
                    saved_at = time.monotonic()
                    saving = self._workspace.checkpoint_s = saved_at - now
                yield report

    def _batches(self, start: int) -> Iterator[Batch]:
        """This worker's share of every step from `start` on, on the device."""
        experiment, rank, world = self.experiment, self._collective.rank, self._collective.world
        if experiment.optim.batch_size % world:
            raise UserError(f"optim.batch_size {experiment.optim.batch_size} cannot be divided by {world} workers")
        beside = experiment.output.beside
        pools = [self._pool(kind) for kind in beside]
        labelled = mixing.plan(experiment, self._dataset, self._lengths, self._classes, self._workspace.remember)
        plan = planning.with_beside(labelled, pools, experiment.seed).share(rank, world)
        steps, rows = plan.row.shape
        table = pa.concat_tables([self._dataset.rows(split) for split in self._read()])
        views = plan.steps(start, steps).views(table)
        blocks = self._execute(views, self._encode(self._training_side()))
        for step in batching.regroup(blocks, rows):
            batch = batching.collate_step(step, self._bundle.pad_id, beside).to(self._workspace.device)
            self._started = self._started or time.monotonic()
            yield self._taught(batch)

    def _classes(self, split: str = "train") -> planning.I64 | None:
        """The class of every row of a split; None where rows have other labels than one class each."""
        labels = self._dataset.rows(split)["label"]
        if pa.types.is_integer(labels.type):
            return np.asarray(labels.to_numpy(), np.int64)
        if self.experiment.optim.sampling == "balanced" or self.experiment.input.augment.balance:
            raise UserError("balanced sampling and augmentation need rows of one class each")
        return None

    def _output_side(self) -> OutputSide:
        """The output side for the training rows as they are."""
        classes, output = self._classes(), self.experiment.output
        if classes is None:
            return output
        counts = np.bincount(classes, minlength=len(self._dataset.labels)).tolist()
        return output.for_classes(counts).for_tasks(self._dataset.auxiliary_classes)

    def _pool(self, kind: Beside) -> planning.Pool:
        """The rows of a kind among those of training."""
        split = "train" if kind.source == "labelled" else kind.source
        before = self._read()[: self._read().index(split)]
        start, tokens = sum(self._dataset.rows(name).num_rows for name in before), self._lengths(split)
        if kind.parts:
            rows = len(tokens) // len(FEEDBACK_PARTS)
            starts = [start + FEEDBACK_PARTS.index(part) * rows for part in kind.parts]
            return planning.Pool(kind, starts, tokens[:rows])
        sizes = [table.num_rows for table in self._dataset.auxiliary] if split == "auxiliary" else []
        return planning.Pool(kind, (start,) * kind.views, tokens, mixing.tempered(sizes, kind.temperature))

    def _read(self) -> tuple[str, ...]:
        """What the training reads, in the order in which plans number its rows."""
        sources = {kind.source for kind in self.experiment.output.beside}
        others = ("unlabelled", "clean", "auxiliary", "feedback")
        return ("train", "mixed", *(name for name in others if name in sources))

    def _training_side(self) -> InputSide | None:
        """The input side for training rows; None when it would change nothing."""
        side = self.experiment.input
        changed = any(kind.changed for kind in self.experiment.output.beside) and side.augment.policy
        return side if side.reconstruct or policy.augments(side) or changed else None

    def _effects(self) -> dict[str, float]:
        statistics = self._encode(self._training_side()).statistics
        return text_effects.of_copies(self._dataset.train, self.experiment, statistics, self._asked)

    def _encode(self, side: InputSide | None) -> batching.Encode:
        experiment = self.experiment
        statistics = None
        if side is not None and side.augment.policy:
            language, asked = experiment.data.language, (side.protect.label_words > 0, policy.takes_examples(side))
            statistics = self._workspace.remember(
                ("statistics", self._dataset.digest, language, side.segmentation, asked),
                lambda: policy.statistics(
                    self._dataset.train, language, side.segmentation, label_words=asked[0], examples=asked[1]
                ),
            )
        return batching.Encode.of(experiment, self._bundle, paired=self._paired, side=side, statistics=statistics)

    def _lengths(self, split: str) -> planning.I64:
        """Tokens of every original of a split, as it stands in the data: the same for every input side."""
        task, model = self.experiment.task, self.experiment.model
        key = ("lengths", task, split, self._dataset.digest, model.source, model.vocabulary, model.max_length)
        views = batching.evaluation_views(self._dataset.rows(split))

        def found() -> planning.I64:
            encode, starts = self._encode(None), range(0, max(1, views.num_rows), LENGTHS_ROWS)
            blocks = (encode(views.slice(start, LENGTHS_ROWS)) for start in starts)
            return np.concatenate([batching.lengths(block)[task.begins(block)] for block in blocks])

        return self._workspace.remember(key, found)

    # -- evaluation and the model -----------------------------------------------------------------------------------

    def _evaluation_batches(self, split: str) -> tuple[list[Batch], planning.I64]:
        """This worker's rows of a split in batches of like length, and each row's position in the split."""
        experiment, rank, world = self.experiment, self._collective.rank, self._collective.world
        side = batching.evaluation_side(experiment.input)

        def make() -> tuple[list[Batch], planning.I64]:
            table: pa.Table = getattr(self._dataset, split)
            mine = np.arange(rank, table.num_rows, world)
            views = batching.evaluation_views(table.take(pa.array(mine)))
            encoded = pa.concat_tables(
                [self._encode(side)(views.slice(0, 0)), *self._execute(views, self._encode(side))]
            )
            tables, order = batching.of_like_length(encoded, experiment.task)
            batches = [batching.collate(rows, self._bundle.pad_id).to(self._workspace.device) for rows in tables]
            return batches, mine[order]

        task, model = experiment.task, experiment.model
        key = (task, split, self._dataset.digest, model.source, model.vocabulary, model.max_length, rank, world)
        changed = json.dumps([experiment.seed, side.model_dump(mode="json")]) if side else ""
        return self._workspace.remember((*key, changed), make)

    def score_test(self) -> Scored:
        """Score the test rows, once, at the very end, with the weights exactly as they are saved."""
        self._settle()
        task, optim = generation.scored(self.experiment.task, self._bundle, "test"), self.experiment.optim
        module = self._bundle.module
        forward = training.ModelForward(module, module, optim.precision)
        batches, positions = self._evaluation_batches("test")
        total = training.no_sums(task, len(self._dataset.labels))
        right = [torch.zeros(0)]
        for batch, logits in training.predictions(forward, batches):
            total = total + task.sums(logits, batch)
            right.append(task.row_scores(logits, batch).cpu())
        hits = torch.zeros(self._dataset.test.num_rows)
        hits[torch.from_numpy(positions)] = torch.cat(right)
        return Scored(
            metrics=task.metrics(self._collective.sum(total)),
            hits=tuple(self._collective.sum(hits).tolist()),
        )

    def save(self) -> Path:
        """Save the model (see `models`) in the trial's directory and drop its checkpoints. Returns where it is."""
        return self.saving()()

    def saving(self) -> Callable[[], Path]:
        """`save`, in two parts: this takes the weights, and what it returns writes them, at any time, in any thread."""
        stored = models.compact(self._bundle) if self._stored is None else self._stored

        def write() -> Path:
            target = self._directory / "model"
            if self._collective.rank == 0:
                models.save(
                    target,
                    stored,
                    base=self._bundle.base,
                    labels=self._dataset.labels,
                    paired=self._paired,
                    experiment=self.experiment,
                )
            self.discard()
            return target

        return write

    def _settle(self) -> None:
        """Round the weights to what a saved model holds of them, so that what is scored is what is saved."""
        if self._stored is None:
            self._stored = models.compact(self._bundle)
            models.restore(self._bundle, self._stored)

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def discard(self) -> None:
        """Drop the checkpoints: the trial is over, or was stopped for good."""
        if self._collective.rank == 0:
            shutil.rmtree(self._directory / "checkpoints", ignore_errors=True)

    def checkpoint(self) -> None:
        """Write a checkpoint of the last report. Call it while `reports` waits at that report, on any worker."""
        progress = self._progress
        if self._collective.rank > 0 or progress is None:
            return
        state = {
            "experiment": self.experiment.digest,
            "data": self._dataset.digest,
            "world": self._collective.world,
            "reports": [asdict(report) for report in self.history],
            "sums": self.sums,
            "training": progress.state(),
        }
        checkpoints.save(self._directory / "checkpoints", progress.step, state)

    def _resume(self) -> Any:
        """The training state of the newest whole checkpoint, or None."""
        loaded = checkpoints.load(self._directory / "checkpoints")
        self.notes.extend(loaded.notes)
        if loaded.state is None:
            return None
        for what, mine in (("experiment", self.experiment.digest), ("data", self._dataset.digest)):
            if loaded.state[what] != mine:
                raise UserError(f"{self._directory} holds a checkpoint of other {what}: choose another directory")
        world = loaded.state["world"]
        if world != self._collective.world:
            self.notes.append(f"the checkpoint was made by {world} workers: results will differ in the last bits")
        self.history = [Report(**report) for report in loaded.state["reports"]]
        self.sums = loaded.state["sums"]
        self.notes.append(f"went on from step {self.history[-1].step}")
        return loaded.state["training"]
