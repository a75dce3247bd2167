"""One trial: an experiment's data read, its model trained, reported, checkpointed, scored and saved.

Edges differ in who the workers are (`Collective`) and where text is transformed (`Execute`); the trial is the same.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import torch

from bothways import (
    assets,
    batching,
    checkpoints,
    models,
    policy,
    seeding,
    text_effects,
    tokenization,
    training,
)
from bothways.config import Experiment, InputSide
from bothways.contracts import Batch, Collective, Execute
from bothways.errors import UserError
from bothways.results import Report
from bothways.training import Diverged

if TYPE_CHECKING:
    from bothways.data import Dataset

__all__ = ["Diverged", "Scored", "Trial", "Workspace"]

T = TypeVar("T")

EVALUATION_ROWS = 128
"""Rows in a batch that needs no gradient."""
CHECKPOINT_SHARE = 0.05
"""The largest share of a trial's time that goes into checkpoints: a slow disk gets fewer, a short trial none."""
CHEAP_S = 0.2
"""What a checkpoint may cost to be written at a trial's first report, however short the trial."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Metrics on the test rows, and for each row, in their order, whether it was right."""

    metrics: Mapping[str, float]
    hits: tuple[bool, ...]


class Workspace:
    """What the trials of one process share: the model with its base weights, encoded rows, statistics.

    No trial leaves a trace in it: what one gives here after others, it gives alone in a new process, bit for bit.
    Making one sets the process up for deterministic arithmetic. `checkpoint_s`: what the last checkpoint cost here.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.checkpoint_s = 0.0
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    @property
    def bf16_is_emulated(self) -> bool:
        """True where bf16 is computed in software (measured: 13 times slower than fp32 on a CPU with AVX2 only)."""
        return self.device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()

    def remember(self, key: Hashable, make: Callable[[], T], capacity: int = 32) -> T:
        """`make()`, or what it gave for the same `key` before. Holds the `capacity` results used last."""
        if key not in self._kept:
            self._kept[key] = make()
            if len(self._kept) > capacity:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        kept: T = self._kept[key]
        return kept

    def model(
        self, source: str, labels: tuple[str, ...], vocabulary: tokenization.Vocabulary | None = None
    ) -> models.Bundle:
        """The model of `source`, loaded once. Its weights are whatever the last trial left: see `models.reset`."""
        key = ("model", source, len(labels), vocabulary)
        return self.remember(key, lambda: models.load(source, labels, self.device, vocabulary))


class Trial:
    """A trial of `experiment` on `dataset` by the workers of `collective`; every one of them makes this same object.

    `directory`: this trial's own; holds its checkpoints and its saved model. A trial that finds a checkpoint there goes
    on from it. `notes`: one line for everything its user should know. `history`: all reports, also those made before a
    restart. `sums`: the task's over the selection rows at the last of them, None before the first.

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
        self._stored: dict[str, torch.Tensor] | None = None
        self._progress: training.Progress | None = None
        policy.check(experiment.input, experiment.data.language)
        self._paired = dataset.train["pair"].null_count < dataset.train.num_rows
        seed = seeding.integer(experiment.seed, "trial", collective.rank)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # for libraries that draw from it: we never do
        torch.manual_seed(seed)
        model = experiment.model
        self._bundle = workspace.model(model.source, dataset.labels, self._vocabulary())
        models.reset(self._bundle, labels=dataset.labels, dropout=model.dropout, seed=experiment.seed)
        if experiment.optim.precision == "bf16" and workspace.bf16_is_emulated:
            self.notes.append("this CPU has no bf16 arithmetic: precision bf16 is many times slower here than fp32")
        self._state = self._resume()

    def _vocabulary(self) -> tokenization.Vocabulary | None:
        """What is kept of the model's vocabulary; None for all of it. The same for every fold of the data."""
        source, dataset = self.experiment.model.source, self._dataset
        if self.experiment.model.vocabulary == "whole":
            return None

        def make() -> tokenization.Vocabulary:
            tables = (dataset.train, dataset.selection, dataset.unlabelled)
            columns = [table[name] for table in tables for name in ("text", "pair")]
            return tokenization.used(tokenization.tokenizer(str(assets.resolve(source))).backend_tokenizer, columns)

        return self._workspace.remember(("vocabulary", dataset.digest, source), make)

    # -- training ---------------------------------------------------------------------------------------------------

    def reports(self) -> Iterator[Report]:
        """Train, yielding a report every `evaluate_every` steps. Closing it stops the trial where it is.

        A checkpoint of the reported state is on disk before the report is seen, unless checkpoints would take more than
        `CHECKPOINT_SHARE` of the time. The first report has `time/start_s`, what went by before the first step, and
        `text/…`, what the policy does to the trial's copies (see `text_effects`).
        """
        experiment, began = self.experiment, time.monotonic()
        before = self.history[-1].seconds if self.history else 0.0
        saving = self._workspace.checkpoint_s
        saved_at = began if saving > CHEAP_S else -np.inf
        progresses = training.train(
            self._bundle.module,
            task=experiment.task,
            output=experiment.output,
            optim=experiment.optim,
            seed=experiment.seed,
            batches=self._batches,
            selection=self._evaluation_batches("selection")[0],
            collective=self._collective,
            state=self._state,
        )
        self._state = None
        with closing(progresses):  # type: ignore[type-var]
            for number, progress in enumerate(progresses):
                self._progress, self.sums = progress, progress.sums
                first = {} if number else {"time/start_s": self._started - self._created}
                if not self.history:
                    first |= self._effects()
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
        optim = experiment.optim
        plan = batching.plan(
            self._lengths(),
            experiment.input.augment,
            batch_size=optim.batch_size,
            steps=optim.steps,
            seed=experiment.seed,
        ).share(rank, world)
        steps, rows = plan.row.shape
        views = plan.steps(start, steps).views(self._dataset.train)
        blocks = self._execute(views, self._encode(self._training_side()))
        for table in batching.regroup(blocks, rows):
            batch = batching.collate(table, self._bundle.pad_id).to(self._workspace.device)
            self._started = self._started or time.monotonic()
            yield batch

    def _training_side(self) -> InputSide | None:
        """The input side for training rows; None when it would change nothing."""
        side = self.experiment.input
        return side if side.reconstruct or policy.augments(side) else None

    def _effects(self) -> dict[str, float]:
        statistics = self._encode(self._training_side()).statistics
        return text_effects.of_copies(self._dataset.train, self.experiment, statistics)

    def _encode(self, side: InputSide | None) -> batching.Encode:
        experiment = self.experiment
        statistics = None
        if side is not None and side.augment.policy:
            language, examples = experiment.data.language, policy.takes_examples(side)
            statistics = self._workspace.remember(
                ("statistics", self._dataset.digest, language, side.segmentation, examples),
                lambda: policy.statistics(self._dataset.train, language, side.segmentation, examples=examples),
            )
        return batching.Encode(
            tokenizer_path=self._bundle.path,
            max_length=experiment.model.max_length,
            paired=self._paired,
            vocabulary=self._bundle.vocabulary,
            side=side,
            language=experiment.data.language,
            seed=experiment.seed,
            statistics=statistics,
        )

    def _lengths(self) -> batching.I64:
        """Tokens of every training row's original, as it stands in the data: the same for every input side."""
        model = self.experiment.model
        key = ("lengths", self._dataset.digest, model.source, model.vocabulary, model.max_length)
        views = batching.evaluation_views(self._dataset.train)
        return self._workspace.remember(key, lambda: batching.lengths(self._encode(None)(views)))

    # -- evaluation and the model -----------------------------------------------------------------------------------

    def _evaluation_batches(self, split: str) -> tuple[list[Batch], batching.I64]:
        """This worker's rows of a split in batches of like length, and each row's position in the split."""
        experiment, rank, world = self.experiment, self._collective.rank, self._collective.world
        side = batching.evaluation_side(experiment.input)

        def make() -> tuple[list[Batch], batching.I64]:
            table: pa.Table = getattr(self._dataset, split)
            mine = np.arange(rank, table.num_rows, world)
            views = batching.evaluation_views(table.take(pa.array(mine)))
            encoded = pa.concat_tables(
                [self._encode(side)(views.slice(0, 0)), *self._execute(views, self._encode(side))]
            )
            order = np.argsort(batching.lengths(encoded), kind="stable")
            tables = batching.regroup([encoded.take(pa.array(order))], EVALUATION_ROWS)
            batches = [batching.collate(rows, self._bundle.pad_id).to(self._workspace.device) for rows in tables]
            return batches, mine[order]

        model = experiment.model
        key = (split, self._dataset.digest, model.source, model.vocabulary, model.max_length, rank, world)
        changed = json.dumps([experiment.seed, side.model_dump(mode="json")]) if side else ""
        return self._workspace.remember((*key, changed), make)

    def score_test(self) -> Scored:
        """Score the test rows, once, at the very end, with the weights exactly as they are saved."""
        self._settle()
        task, optim = self.experiment.task, self.experiment.optim
        module = self._bundle.module
        forward = training.ModelForward(module, module, optim.precision)
        batches, positions = self._evaluation_batches("test")
        total = training.no_sums(task, len(self._dataset.labels))
        right = [torch.zeros(0, dtype=torch.bool)]
        for batch, logits in training.predictions(forward, batches):
            total = total + task.sums(logits, batch)
            right.append((logits.argmax(dim=1) == batch.labels).cpu())
        hits = torch.zeros(self._dataset.test.num_rows)
        hits[torch.from_numpy(positions)] = torch.cat(right).float()
        return Scored(
            metrics=task.metrics(self._collective.sum(total)),
            hits=tuple(bool(hit) for hit in self._collective.sum(hits).tolist()),
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
