"""Arms of a few-shot pipeline: meta-train with each seed, judge by the same episodes, keep the model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from bothways import models, policy, seeding
from bothways.batches import batching
from bothways.config import Experiment
from bothways.config.few_shot import Arm, FewShot
from bothways.contracts import Collective, Execute
from bothways.data import Dataset
from bothways.errors import UserError
from bothways.few_shot.episodes import I64, Drawn, Pools, draw, draw_for_training, pools
from bothways.few_shot.learner import Classifier, plain
from bothways.few_shot.result import F64, ArmResult
from bothways.joint.meta import Episode, adapt, fixed
from bothways.pretraining import preparing
from bothways.tokenization import tokenizer
from bothways.training import Diverged
from bothways.training.checkpoints import atomic_directory
from bothways.training.optimizer import Optimizer
from bothways.training.workspace import Workspace

Tell = Callable[[str], None]


class FewShotRun:
    """What all arms and seeds share: the rows, encoded once, the episodes, the model. `notes`: one line for everything
    its user should know.

    Raises `UserError`.
    """

    def __init__(
        self,
        experiment: Experiment,
        few_shot: FewShot,
        dataset: Dataset,
        *,
        collective: Collective,
        execute: Execute,
        workspace: Workspace,
    ) -> None:
        refuse_unused(experiment, few_shot)
        self._experiment, self._few_shot, self._shape = experiment, few_shot, few_shot.episodes
        self._collective, self._device = collective, workspace.device
        self.pools: Pools = pools(dataset, few_shot.classes, few_shot.episodes)
        self.notes = self.pools.notes
        self._labels = tuple(f"class {number}" for number in range(self._shape.ways))
        source, vocabulary = experiment.model.source, preparing.vocabulary(experiment, dataset)
        self._bundle = workspace.model(source, self._labels, vocabulary, experiment.task)
        self._bundle.check_length(experiment.model)
        paired = dataset.train["pair"].null_count < dataset.train.num_rows
        side = batching.evaluation_side(experiment.input)
        encode = batching.Encode.of(experiment, self._bundle, paired=paired, side=side)
        views = batching.evaluation_views(self.pools.table)
        self._encoded = pa.concat_tables(execute(views, encode)).combine_chunks()
        self._texts = self._seen(dataset)

    def _seen(self, dataset: Dataset) -> Dataset:
        """The texts that may be learned from without labels: those of meta-training."""
        rows = np.concatenate([rows for pool in self.pools.train for rows in pool.values()])
        nothing = dataset.unlabelled.slice(0, 0)
        seen = self.pools.table.take(pa.array(np.sort(rows)))
        return replace(dataset, train=seen, unlabelled=nothing, mixed=(), digest=f"{dataset.digest} few-shot")

    def arm(self, name: str, directory: Path, tell: Tell) -> ArmResult:
        """Meta-train the arm with every seed and judge it. The first seed's model is kept in `directory`/`name`.

        Raises `Diverged`.
        """
        arm, rows, train_s, test_s = self._few_shot.arms[name], [], 0.0, 0.0
        model: Path | None = None
        for seed in range(self._experiment.seed, self._experiment.seed + self._few_shot.seeds):
            began = time.monotonic()
            for step, loss in self.train(arm, seed):
                tell(f"{name} seed {seed}: step {step}/{self._steps(arm)}, loss {loss:.4f}")
            if arm.meta.trains and model is None:
                model = directory / name
                self.save(model)
            trained = time.monotonic()
            rows.append(self.judge(seed))
            train_s, test_s = train_s + trained - began, test_s + time.monotonic() - trained
            tell(f"{name} seed {seed}: accuracy {rows[-1].mean():.4f} over {len(rows[-1])} episodes")
        return ArmResult(
            name=name,
            method=arm.meta.spec(),
            accuracy=np.stack(rows),
            train_s=train_s / len(rows),
            episode_s=test_s / len(rows) / self._shape.test,
            model=str(model or ""),
        )

    def _steps(self, arm: Arm) -> int:
        return (arm.optim or self._experiment.optim).steps

    def train(self, arm: Arm, seed: int) -> Iterator[tuple[int, float]]:
        """Meta-train from the pretrained weights on, yielding (outer step, mean loss since) now and then.

        Dropout depends on (seed, outer step, episode) only.
        """
        experiment, module = self._experiment, self._reset(seed)
        optim = arm.optim or experiment.optim
        if not arm.meta.trains:
            return
        with plain(experiment.output.trainable)(module) as moves:
            learner = Classifier(module, self._shape, optim.precision)
            outer = {name: move for name, move in moves.items() if name not in learner.head}
            optimiser = Optimizer(module, optim, self._collective, outer, rowwise=False)
            losses: list[torch.Tensor] = []
            with optimiser.in_place():
                for step in range(optim.steps):
                    for number in range(self._shape.batch):
                        drawn = draw_for_training(self.pools.train, self._shape, "meta-train", seed, step, number)
                        torch.manual_seed(seeding.integer(seed, "dropout", step, number))
                        steps, share = self._shape.adapt_steps, 1 / self._shape.batch
                        losses.append(arm.meta.gradient(learner, self.episode(drawn), steps, share))
                    if not math.isfinite(optimiser.step(step)):
                        raise Diverged(f"the outer gradient is not finite at step {step + 1}: lower optim or adapt_lr")
                    if (step + 1) % optim.evaluate_every == 0 or step + 1 == optim.steps:
                        yield step + 1, float(torch.stack(losses).mean())
                        losses.clear()
        module.requires_grad_(True)

    def _reset(self, seed: int) -> Any:
        experiment = self._experiment.model_copy(update={"seed": seed})
        prepared = preparing.prepared(experiment, self._texts, self._bundle, self._collective)
        start = prepared.weights if prepared else None
        models.reset(self._bundle, labels=self._labels, dropout=experiment.model.dropout, seed=seed, start=start)
        return self._bundle.module.train()

    def judge(self, seed: int) -> F64:
        """The share of query rows that is right after adaptation, of every episode that judges, from the weights as
        they are. (E,)"""
        return np.array([self._accuracy(number, seed) for number in range(self._shape.test)])

    def _accuracy(self, number: int, seed: int) -> float:
        learner = Classifier(self._bundle.module, self._shape, self._experiment.optim.precision)
        episode = self.episode(draw(self.pools.test, self._shape, "meta-test", self._experiment.seed, number))
        torch.manual_seed(seeding.integer(seed, "adaptation", number))
        learner.module.train()
        start = learner.start(fixed(learner.own()), episode.support)
        adapted = fixed(adapt(learner, start, [episode.support], self._shape.adapt_steps))
        learner.module.eval()
        with torch.no_grad():
            found = learner.logits(adapted, episode.query).argmax(dim=1)
        return float((found == episode.query.labels).double().mean())

    def episode(self, drawn: Drawn) -> Episode:
        """The rows as batches, classes numbered in the order in which they were drawn."""
        rows: I64 = np.concatenate([drawn.support.ravel(), drawn.query.ravel()])
        batch = batching.collate(self._encoded.take(pa.array(rows)), self._bundle.pad_id)
        batch = replace(batch, labels=torch.arange(len(rows)) % drawn.support.shape[1]).to(self._device)
        first = drawn.support.size
        return Episode(support=batch.slice(0, first), query=batch.slice(first, len(rows)))

    def save(self, directory: Path) -> None:
        """Write the weights as they are as a transformers directory, all but the last layer, which belongs to an
        episode: a training whose `model.source` this is gets a new one."""
        module = self._bundle.module
        head = Classifier(module, self._shape).head
        weights = {name: value for name, value in module.state_dict().items() if name not in head}
        with atomic_directory(directory) as aside, models.quiet():
            module.save_pretrained(aside, state_dict=weights)
            tokenizer(self._bundle.path, self._bundle.vocabulary).save_pretrained(aside)


def refuse_unused(experiment: Experiment, few_shot: FewShot) -> None:
    """Raises `UserError` for what an experiment asks for and episodes have no place for."""
    if experiment.task.name != "classification":
        raise UserError(f"few_shot is for the task classification, not {experiment.task.name}")
    if policy.augments(experiment.input):
        raise UserError("few_shot shows rows as they are: leave input.augment out")
    if [term.objective.name for term in experiment.output.terms] != ["cross_entropy"]:
        raise UserError("few_shot adapts by cross_entropy: leave output.objectives out")
    for trainable in (experiment.output.trainable, few_shot.episodes.adapt):
        plain(trainable)
