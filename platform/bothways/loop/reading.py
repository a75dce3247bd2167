"""A loop file becomes typed stages, each with its pipeline. Mistakes are `file:line: what is wrong, the way out`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import ValidationError

from bothways.config import Config, Name, Pipeline, Run
from bothways.config.complaints import complaints, mistyped
from bothways.config.shape import Path, assign, dotted, parts, shown
from bothways.config.yaml_io import Document, checked, load_pipeline, parse, read
from bothways.errors import UserError, did_you_mean
from bothways.loop import flow, references
from bothways.loop.references import Reference
from bothways.loop.stages import KINDS, Evaluate, Lexicon, OnPipeline, Stage, SuggestLabels, Trained, Tune

C = TypeVar("C", bound=Config)
T = TypeVar("T")


class _Head(Config):
    name: Name
    description: str = ""
    run: Run = Run()


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A checked loop file. `pipelines`: of the stages that have one, with references left as they are written;
    `folders`: from which their search spaces are found. `run`: where all stages run."""

    name: str
    description: str
    run: Run
    stages: tuple[Stage, ...]
    pipelines: Mapping[str, Pipeline]
    folders: Mapping[str, FilePath]

    @cached_property
    def references(self) -> dict[str, list[Reference]]:
        """What each stage starts from."""
        return {stage.name: list(_references(stage, self.pipelines)) for stage in self.stages}

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def space(self, stage: Stage) -> FilePath:
        """The space file of a search."""
        search = self.pipelines[stage.name].search
        assert search is not None
        return FilePath(os.path.normpath(self.folders[stage.name] / search.space))


def is_loop(data: Any) -> bool:
    """Whether what a file holds is a loop, told by its stages."""
    return isinstance(data, Mapping) and "stages" in data


def load_loop(path: str | FilePath, overrides: Sequence[str] = ()) -> Loop:
    """A loop file, then `run.KEY=value` overrides. Raises `UserError`, one line for each problem."""
    document = read(path)
    if not is_loop(document.data):
        raise UserError(f"{document.name}:1: is no loop, which has name and stages: see pipelines/closed_loop.yaml")
    data: dict[str, Any] = document.data
    head = _checked(_Head, {key: value for key, value in data.items() if key != "stages"}, document, ())
    written = data["stages"]
    if not isinstance(written, list) or not written:
        raise UserError(f"{document.where(('stages',))}: stages: must be a list of stages, not {shown(written)}")
    stages = tuple(_stage(one, document, ("stages", number)) for number, one in enumerate(written))
    pipelines, folders = _pipelines(stages, document, FilePath(path).parent)
    loop = Loop(
        name=head.name,
        description=head.description,
        run=_overridden(head.run, overrides),
        stages=stages,
        pipelines=pipelines,
        folders=folders,
    )
    _check(loop, document)
    return loop


def _stage(written: Any, document: Document, path: Path) -> Stage:
    place = document.where(path)
    if not isinstance(written, dict):
        raise UserError(f"{place}: a stage is a mapping with name and kind, not {shown(written)}")
    kind = written.get("kind")
    if kind not in KINDS:
        raise UserError(f"{document.where((*path, 'kind'))}: unknown kind of stage {shown(kind)}: {_near(kind, KINDS)}")
    return _checked(KINDS[str(kind)], written, document, path)


def _near(value: Any, known: Mapping[str, Any]) -> str:
    return did_you_mean(value if isinstance(value, str) else "", known)


def _checked(model: type[C], data: Any, document: Document, path: Path) -> C:
    """`data`, which stands at `path`, as a `model`; an unknown key is named beside those there are."""

    def where(inner: Path) -> str:
        return document.where((*path, *inner))

    try:
        config = model.model_validate(data)
    except ValidationError as error:
        unknown = [item["loc"] for item in error.errors(include_url=False) if item["type"] == "extra_forbidden"]
        said = [
            f"{where(place)}: unknown key {shown(place[-1])}: {did_you_mean(str(place[-1]), _keys(model, place))}"
            for place in unknown
        ]
        raise UserError("\n".join(said or complaints(error, data, where))) from None
    wrong = list(mistyped(data, config.model_dump(mode="json"), where))
    if wrong:
        raise UserError("\n".join(wrong))
    return config


def _keys(model: type[Config], place: Path) -> list[str]:
    """The keys of the section of `model` in which the last part of `place` was found."""
    for part in place[:-1]:
        if isinstance(part, int):
            continue
        holders = [model.model_fields[part].annotation]
        while holders:
            one = holders.pop()
            if isinstance(one, type) and issubclass(one, Config):
                model = one
                break
            holders.extend(getattr(one, "__args__", ()))
    return list(model.model_fields)


def _pipelines(
    stages: Sequence[Stage], document: Document, folder: FilePath
) -> tuple[dict[str, Pipeline], dict[str, FilePath]]:
    found: dict[str, Pipeline] = {}
    folders: dict[str, FilePath] = {}
    for number, stage in enumerate(stages):
        if not isinstance(stage, OnPipeline):
            continue
        path: Path = ("stages", number)
        base, folders[stage.name] = _base(stage, document, path, folder, (found, folders))
        found[stage.name] = _with(base, stage, document, path)
    return found, folders


def _base(
    stage: OnPipeline,
    document: Document,
    path: Path,
    folder: FilePath,
    known: tuple[Mapping[str, Pipeline], Mapping[str, FilePath]],
) -> tuple[Pipeline, FilePath]:
    """A stage's pipeline before its overrides, and the folder from which its space is found."""
    written, place = stage.pipeline, (*path, "pipeline")
    if isinstance(written, dict):
        for key in written:
            if key not in ("experiment", "search", "description"):
                raise UserError(
                    f"{document.where((*place, key))}: unknown key {shown(key)}: a stage's pipeline has experiment and "
                    "search; name and run are the loop's"
                )
        spec = {"name": stage.name, **written}
        return checked(Pipeline, spec, lambda inner: document.where((*place, *inner))), folder
    if references.is_reference(written):
        name = written.removeprefix(references.PREFIX)
        if name not in known[0]:
            near = _near(name, known[0])
            raise UserError(f"{document.where(place)}: {written}: no earlier stage of that name has a pipeline: {near}")
        return known[0][name], known[1][name]
    file = FilePath(os.path.normpath(folder / written))
    return load_pipeline(file), file.parent


def _with(base: Pipeline, stage: OnPipeline, document: Document, path: Path) -> Pipeline:
    """The pipeline with the stage's name and overrides."""
    spec = base.model_dump(mode="json") | {"name": stage.name, "run": Run().model_dump(mode="json")}
    places: dict[Path, str] = {}
    for key, value in stage.overrides.items():
        place = f"{document.where((*path, 'overrides', key))}: override {shown(key)}"
        try:
            target = parts(key)
            if target[0] not in ("experiment", "search"):
                raise UserError("begins with experiment or search")
            assign(spec, target, value)
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
        places[target] = place

    def where(inner: Path) -> str:
        near = [place for target, place in places.items() if inner[: len(target)] == target[: len(inner)]]
        return near[-1] if near else document.where(path)

    return checked(Pipeline, spec, where)


def _references(stage: Stage, pipelines: Mapping[str, Pipeline]) -> list[Reference]:
    found: list[Reference] = []
    if stage.name in pipelines:
        found += references.found(pipelines[stage.name].experiment.spec())
    if isinstance(stage, Trained) and stage.policy is not None:
        found.append(Reference(gift="policy", names=references.names(stage.policy), path=("policy",)))
    if isinstance(stage, Evaluate | SuggestLabels | Lexicon) and references.is_reference(stage.model):
        found.append(Reference(gift="model", names=references.names(stage.model), path=("model",)))
    return found


def _check(loop: Loop, document: Document) -> None:
    """Raises `UserError` for what is wrong with the stages together."""
    lines = {stage.name: document.where(("stages", number)) for number, stage in enumerate(loop.stages)}
    by_name: dict[str, list[Reference]] = {}
    for stage in loop.stages:
        place = lines[stage.name]
        by_name[stage.name] = _placed(place, functools.partial(_references, stage, loop.pipelines))
        if isinstance(stage, Trained) and stage.policy is not None and not references.is_reference(stage.policy):
            raise UserError(f"{place}: policy: {shown(stage.policy)} is no `stage:NAME` of a search")
        if isinstance(stage, Tune) and loop.pipelines[stage.name].search is None:
            raise UserError(f"{place}: stage {stage.name!r} is a search, and its pipeline has no `search:` section")
    _placed(document.where(("stages",)), lambda: flow.check(loop.stages, by_name))
    for stage, metric in flow.metrics_asked(loop.stages):
        known = loop.pipelines[stage.name].experiment.task.directions
        if metric not in known:
            raise UserError(f"{lines[stage.name]}: adjust: unknown metric {metric!r}: {did_you_mean(metric, known)}")


def _placed(place: str, what: Callable[[], T]) -> T:
    try:
        return what()
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def _overridden(run: Run, overrides: Sequence[str]) -> Run:
    spec = {"run": run.model_dump(mode="json")}
    for override in overrides:
        key, equals, text = override.partition("=")
        place = f"override {shown(override)}"
        if not equals or not key.startswith("run."):
            raise UserError(f"{place}: write it as run.KEY=value, such as run.storage=elsewhere")
        try:
            assign(spec, parts(key), parse(text, place).data)
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
    if not overrides:
        return run
    return checked(Run, spec["run"], lambda path: f"override run.{dotted(path)}", ("run",))
