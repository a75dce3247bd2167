"""What each kind of stage does: its inputs found and told by their digests, then the work, in the stage's directory."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bothways import data
from bothways.assets import resolve
from bothways.assets.files import sha256
from bothways.assets.fingerprint import fingerprint
from bothways.config import Experiment, Pipeline, yaml_io
from bothways.edges import local
from bothways.edges.loop_work import Done, OnReport, Work
from bothways.errors import UserError
from bothways.loop import Flow, Loop, references, results, stages
from bothways.loop.references import Reference
from bothways.policy import file as policy_file
from bothways.results import Report

SAID = 10
"""Lines of progress of a stage that makes no reports."""


@dataclass
class Workshop:
    """Where stages are done. `last`: of each stage that has run, its directory and result. `say`: hears of progress."""

    loop: Loop
    flow: Flow
    tracking_uri: str
    on_ray: bool
    say: Callable[[str], None]
    last: dict[str, tuple[Path, results.Result]] = field(default_factory=dict)
    _datasets: dict[str, data.Dataset] = field(default_factory=dict)

    def work(self, stage: stages.Stage) -> Work:
        """Raises `UserError` where something that a stage reads cannot be had."""
        kinds: Mapping[type[stages.Stage], Callable[[Any], Work]] = {
            stages.Prepare: self._prepare,
            stages.Train: self._train,
            stages.Tune: self._tune,
            stages.Evaluate: self._evaluate,
            stages.SuggestLabels: self._suggest,
            stages.Lexicon: self._lexicon,
        }
        return kinds[type(stage)](stage)

    # -- what stages start from -------------------------------------------------------------------------------------

    def _path(self, reference: Reference) -> str:
        directory, result = self.last[self.flow.last(reference.names)]
        return str(directory / result.gives[reference.gift])

    def _identity(self, reference: Reference) -> str:
        _, result = self.last[self.flow.last(reference.names)]
        return f"{references.PREFIX}{result.identities.get(reference.gift, result.digest)}"

    def _model(self, written: str) -> tuple[Path, str]:
        """The directory of a model, and what identifies it."""
        if references.is_reference(written):
            reference = Reference(gift="model", names=references.names(written))
            return Path(self._path(reference)), self._identity(reference)
        folder = resolve(written)
        return folder, fingerprint(folder)

    def _experiment(self, stage: stages.OnPipeline) -> tuple[Experiment, dict[str, Any]]:
        """A stage's experiment with paths in place of references, and what identifies it without any path of ours."""
        written = self.loop.pipelines[stage.name].experiment.spec()
        spec = references.replaced(written, self._path)
        identity = references.replaced(written, self._identity)
        policy = stage.policy if isinstance(stage, stages.Trained) else None
        if policy is not None:
            reference = Reference(gift="policy", names=references.names(policy))
            spec["input"] = identity["input"] = policy_file.load(self._path(reference)).spec()["input"]
        if not references.is_reference(written["model"]["source"]):
            identity["model"]["files"] = fingerprint(resolve(written["model"]["source"]))
        named = {value for path, value in references.strings(identity["input"]) if path[-1] == "path" and value}
        identity["files"] = {
            name: sha256(Path(name).expanduser()) for name in named if Path(name).expanduser().is_file()
        }
        return yaml_io.checked(Experiment, spec, lambda _: f"stage {stage.name!r}", ("experiment",)), identity

    def _dataset(self, experiment: Experiment) -> data.Dataset:
        key = f"{experiment.task.spec()} {experiment.data.model_dump_json()}"
        if key not in self._datasets:
            self._datasets[key] = data.load(experiment.data, task=experiment.task)
            for note in self._datasets[key].notes:
                self.say(note)
        return self._datasets[key]

    def _pipeline(self, stage: stages.OnPipeline, experiment: Experiment, **run: Any) -> Pipeline:
        named = {"name": f"{self.loop.name}-{stage.name}", "experiment": experiment}
        where = self.loop.run.model_copy(update=run)
        return self.loop.pipelines[stage.name].model_copy(update={**named, "run": where})

    # -- the kinds --------------------------------------------------------------------------------------------------

    def _prepare(self, stage: stages.Prepare) -> Work:
        from bothways.pretraining import preparing

        experiment, identity = self._experiment(stage)
        dataset = self._dataset(experiment)
        kept = preparing.kept_stage(experiment, {"steps": stage.steps, "batch_size": stage.batch_size, "lr": stage.lr})

        def do(directory: Path, on_report: OnReport) -> Done:
            began = time.monotonic()

            def tell(step: int, loss: float) -> None:
                if step % max(1, kept.steps // SAID) == 0 or step == kept.steps:
                    seconds = time.monotonic() - began
                    metrics = {"train/loss": loss}
                    on_report(Report(step=step, steps=kept.steps, metrics=metrics, seconds=seconds))

            device = local.device(self.loop.run)
            record = preparing.language_model(experiment, dataset, kept, device, directory / "model", tell)
            metrics = {"loss_before": record.first, "loss_after": record.last, "top1": record.top1}
            return Done(metrics=metrics, gives={"model": "model"})

        about = {key: identity[key] for key in ("seed", "data", "model")}
        return Work(
            identity={"learns": kept.spec(), "texts": dataset.digest, **about}, spec={**about, **kept.spec()}, do=do
        )

    def _train(self, stage: stages.Train) -> Work:
        experiment, identity = self._experiment(stage)
        dataset = self._dataset(experiment)

        def do(directory: Path, on_report: OnReport) -> Done:
            from bothways import models

            trial = directory / "trial"
            if self.on_ray:
                from bothways.edges.single import through_ray

                result = through_ray(self._pipeline(stage, experiment), trial, dataset, on_report)
            else:
                result = local.run(
                    experiment,
                    self.loop.run,
                    trial_id=directory.name,
                    directory=trial,
                    dataset=dataset,
                    on_report=on_report,
                    score_test=True,
                )
            if result.status != "finished":
                raise UserError(f"stage {stage.name!r} {result.status}: {result.error}")
            models.export(Path(result.model_dir), directory / "model")
            shutil.rmtree(trial)
            metrics = {f"test/{name}": value for name, value in result.test.items()}
            return Done(metrics=metrics, gives={"model": "model"})

        return Work(identity={"experiment": identity, "rows": dataset.digest}, spec=identity, do=do)

    def _tune(self, stage: stages.Tune) -> Work:
        experiment, identity = self._experiment(stage)
        dataset = self._dataset(experiment)
        search = self.loop.pipelines[stage.name].search
        space = self.loop.space(stage)
        assert search is not None

        def do(directory: Path, on_report: OnReport) -> Done:
            from bothways.edges import sweep
            from bothways.edges.hub import Event
            from bothways.edges.lease import begun

            pipeline = self._pipeline(stage, experiment, storage=str(directory), tracking_uri=self.tracking_uri)
            plan = sweep.plan(pipeline, space, resume=bool(begun(directory, pipeline.name)))

            def view(event: Event) -> None:
                if event.outcome is not None:
                    self.say(f"trial {event.trial_id} {event.outcome.status}")

            found = sweep.tune(plan, view)  # what there is to say of the data has been said
            home = Path(found.directory).relative_to(directory)
            metrics = {f"test/{arm.name}": arm.test.mean for arm in found.arms}
            metrics["test/gain"] = found.gain.mean if found.gain else 0.0
            return Done(metrics=metrics, gives={"model": str(home / "champion"), "policy": str(home / "policy.yaml")})

        searched = {"search": search.model_dump(mode="json"), "space": space.read_text("utf-8")}
        return Work(identity={"experiment": identity, "rows": dataset.digest, **searched}, spec=identity, do=do)

    def _evaluate(self, stage: stages.Evaluate) -> Work:
        experiment, _ = self._experiment(stage)
        dataset = self._dataset(experiment)
        model, told = self._model(stage.model)

        def do(directory: Path, on_report: OnReport) -> Done:
            from bothways.predict import Predictor

            by, rows = Predictor(model, local.device(self.loop.run)), dataset.rows(stage.split)
            if by.labels != dataset.labels:
                raise UserError(
                    f"stage {stage.name!r}: the model knows the labels {', '.join(by.labels[:5])}, its data have "
                    f"{', '.join(dataset.labels[:5])}: say under data.label_names which is which"
                )
            if by.paired != (rows["pair"].null_count < rows.num_rows):
                raise UserError(
                    f"stage {stage.name!r}: of model and data, one has pairs of texts, the other single ones"
                )
            return Done(metrics=by.score(rows))

        about = {"model": told, "split": stage.split, "data": experiment.data.model_dump(mode="json")}
        return Work(identity={"model": told, "split": stage.split, "rows": dataset.digest}, spec=about, do=do)

    def _suggest(self, stage: stages.SuggestLabels) -> Work:
        from bothways.edges.loop_labels import suggesting

        scored = {}
        for other in self.loop.stages:
            if isinstance(other, stages.Evaluate) and self._has_its_data(other):
                dataset = self._dataset(self._experiment(other)[0])
                scored[dataset.digest] = dataset
        before = self.last.get(stage.name)
        return suggesting(
            stage,
            self._model(stage.model),
            scored=scored,
            before=before and before[0] / before[1].gives["rows"],
            device=local.device(self.loop.run),
        )

    def _has_its_data(self, stage: stages.Evaluate) -> bool:
        """Whether all that its pipeline refers to has run; its model is another matter."""
        asked = references.found(self.loop.pipelines[stage.name].experiment.spec())
        return all({*reference.names} & {*self.last} for reference in asked)

    def _lexicon(self, stage: stages.Lexicon) -> Work:
        from bothways.loop import label_files

        model, told = self._model(stage.model)
        ours, theirs = (
            [row.text for row in label_files.unlabelled(about.source, about.text)]
            for about in (stage.source, stage.target)
        )

        def do(directory: Path, on_report: OnReport) -> Done:
            from bothways.input_side import lexicon_learning
            from bothways.models.word_vectors import input_vectors

            words = lexicon_learning.domain_words(ours, theirs, language=stage.language, least=stage.least)
            vectors = input_vectors(str(model), words.words)
            found = lexicon_learning.pairs(words, vectors, similarity=stage.similarity)
            if not found:
                raise UserError(f"stage {stage.name!r}: no pairs among {len(words.words)} words: lower similarity")
            lines = [f"{pair.source}\t{pair.target}\t{pair.similarity:.3f}\n" for pair in found]
            (directory / "map.tsv").write_text("".join(lines), encoding="utf-8")
            return Done(metrics={"pairs": float(len(found))}, gives={"lexicon": "map.tsv"})

        about = stage.model_dump(mode="json", exclude={"name", "then"})
        texts = references.digest([ours, theirs])
        return Work(identity={**about, "model": told, "texts": texts}, spec=about, do=do)
