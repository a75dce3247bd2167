"""Search spaces: knobs on dotted paths into an `Experiment`, their domains, and when each is asked for.

A space file, checked against the typed config before anything starts:

    output.objectives.0.name: [cross_entropy, rdrop]                                 # a list: choices
    output.objectives.0.alpha: {log: [0.1, 5], when: {output.objectives.0.name: rdrop}}
    optim.lr: {log: [1e-5, 3e-4]}                                                    # float, log, int, int_log
    control: {output.objectives.0.name: cross_entropy}                               # runs first
    start: [{output.objectives.0.name: rdrop, output.objectives.0.alpha: 1.0}]       # then these
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from bothways.config import Experiment
from bothways.config.complaints import MAX_LINES, complaints, mistyped
from bothways.config.shape import Path, assign, dotted, find, parts, shown
from bothways.config.yaml_io import Document, read
from bothways.contracts import TrialLike
from bothways.errors import UserError, did_you_mean
from bothways.spaces.knobs import Knob, Point, ordered, read_knob, wrong_conditions

WORDS = ("description", "control", "start")
FIXED = ("data", "seed", "task", "optim.steps", "optim.batch_size", "optim.evaluate_every")
"""What may not differ between the trials of one search: the comparison would no longer be one."""
PLAIN = ("identity", "cross_entropy")
"""Components that change nothing: what a control arm may hold, what an arm's name leaves out."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """Who competes. `knobs` stand in an order in which every condition looks back. `text`: the file. Picklable."""

    name: str
    knobs: tuple[Knob, ...]
    control: Point = field(default_factory=dict)
    start: tuple[Point, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    text: str = ""

    def check(self, base: Experiment) -> None:
        """Try every choice and both ends of every range in `base`, and the points that run first.

        Raises `UserError`, one line for each knob or point that fails.
        """
        problems: dict[str, str] = {}
        for knob, point in self._probes(base.spec()):
            self._try(base, point, knob, problems)
        for index, first in enumerate(self.start):
            try:
                _check_start(self, first)
                apply(base, first)
            except UserError as error:
                place = f"{self.places['start']}: start point {index + 1}"
                problems.setdefault(place, f"{place}: {str(error).splitlines()[0]}")
        if not problems:
            try:
                _refuse_change(apply(base, self.first_points(base)[0]), self)
            except UserError as error:
                problems["control"] = f"{self.places['control']}: {error}"
        if problems:
            raise UserError("\n".join(list(problems.values())[:MAX_LINES]))

    def check_comparable(self) -> None:
        """Refuse knobs that would make the trials of one search unequal in rows or budget. Raises `UserError`."""
        for knob in self.knobs:
            if any(_related(parts(fixed), parts(knob.path)) for fixed in FIXED):
                raise UserError(
                    f"{knob.place}: {knob.path} cannot be searched: trials differ in what the model reads and has to "
                    "learn; data, seed, task and the budget in steps are the same for all"
                )

    def first_points(self, base: Experiment) -> list[dict[str, Any]]:
        """The control arm's point, complete, then the `start:` points, which may leave knobs to the searcher."""
        spec = base.spec()
        control: dict[str, Any] = {}
        for knob in self.knobs:
            if not knob.asked(control):
                continue
            try:
                value = self.control[knob.path] if knob.path in self.control else find(spec, parts(knob.path))
            except KeyError:
                raise UserError(f"the control arm needs a value for {knob.path}: add it under `control:`") from None
            if not knob.holds(value):
                raise UserError(
                    f"the control arm has {knob.path} = {shown(value)}, which is outside its domain ({knob.domain()}): "
                    "widen the domain, or give another value under `control:`"
                )
            control[knob.path] = knob.typed(value)
        idle = [path for path in self.control if path not in control]
        if idle:
            raise UserError(f"the control arm is not asked for {idle[0]}: its `when` does not hold, remove it")
        by_path = {knob.path: knob for knob in self.knobs}
        return [control, *({path: by_path[path].typed(v) for path, v in point.items()} for point in self.start)]

    def size(self) -> str:
        """How many different points there are, in words."""
        endless = sum(knob.count is None for knob in self.knobs)
        count, exact = self._count()
        points = f"{count:,}" if exact else f"more than {count:,}"
        if not endless:
            return f"{points} points"
        return f"∞ ({endless} continuous knob{'s' * (endless > 1)}, {points} combinations of the others)"

    def _count(self, budget: int = 20_000) -> tuple[int, bool]:
        """Points, continuous knobs counted once; exact unless more than `budget` branches had to be followed."""
        watched = {path: [v for k in self.knobs for v in k.when.get(path, ())] for k in self.knobs for path in k.when}
        branches: dict[tuple[tuple[str, Any], ...], int] = {(): 1}  # values of the watched knobs → points so far
        exact = True
        for knob in self.knobs:
            following: dict[tuple[tuple[str, Any], ...], int] = {}
            for key, count in branches.items():
                if not knob.asked(dict(key)):
                    following[key] = following.get(key, 0) + count
                elif knob.path not in watched:
                    following[key] = following.get(key, 0) + count * (knob.count or 1)
                else:
                    named = list({(type(v), v): v for v in watched[knob.path] if knob.holds(v)}.values())
                    rest = (knob.count or 1) - len(named)
                    for value in named:
                        following[(*key, (knob.path, value))] = count
                    if rest:
                        following[key] = following.get(key, 0) + count * rest
            exact = exact and len(following) <= budget
            branches = dict(list(following.items())[:budget])
        return sum(branches.values()), exact

    def _probes(self, spec: dict[str, Any]) -> Iterator[tuple[Knob, dict[str, Any]]]:
        """Points that meet every edge of every knob under every choice it depends on; the rest stay as in `spec`."""
        seen: set[str] = set()
        for knob in self.knobs:
            for point in self._combinations(spec, {knob.path, *self._governing(knob)}):
                key = repr(sorted(point.items()))
                if knob.path in point and key not in seen:
                    seen.add(key)
                    yield knob, point

    def _governing(self, knob: Knob) -> set[str]:
        """The knobs that decide whether `knob` is asked, or which component it is a knob of."""
        by_path = {k.path: k for k in self.knobs}
        found: set[str] = set()
        waiting = [knob]
        while waiting:
            one = waiting.pop()
            at = parts(one.path)
            names = {dotted((*at[:depth], "name")) for depth in range(1, len(at))}
            new = (names | set(one.when)) & by_path.keys() - found - {knob.path}
            found |= new
            waiting += [by_path[path] for path in new]
        return found

    def _combinations(self, spec: dict[str, Any], varied: set[str], most: int = 200) -> list[dict[str, Any]]:
        points: list[dict[str, Any]] = [{}]
        for knob in self.knobs:
            values = self._edges(knob)
            if knob.path not in varied:
                values = [_current(spec, knob, values[0])]
            points = [
                {**point, knob.path: value} if knob.asked(point) else point
                for point in points
                for value in (values if knob.asked(point) else [None])
            ][:most]
        return points

    def _edges(self, knob: Knob) -> list[Any]:
        """The choices; or both ends, a value between (not only whole numbers fit), and what conditions name."""
        if knob.kind == "choices":
            return [*knob.values]
        low, high = knob.values
        between = [] if knob.count else [low + (high - low) * 0.381966]
        return [low, high, *between, *(v for k in self.knobs for v in k.when.get(knob.path, ()))]

    def _try(self, base: Experiment, point: Point, probed: Knob, problems: dict[str, str]) -> None:
        """Build the experiment of `point`; a failure is written to the knob it is about, else to the one probed."""

        def at(path: Path) -> str:
            about = [k for k in self.knobs if k.path in point and _related(parts(k.path), path)]
            return (about or [probed])[-1].path

        knobs = {knob.path: knob for knob in self.knobs}
        sound = {path: value for path, value in point.items() if path not in problems}
        try:
            _build(base, sound, at)
        except UserError as error:
            before = len(problems)
            for line in str(error).splitlines():
                path, _, message = line.partition(": ")
                if path in knobs:
                    names = [n for n in point if n.endswith(".name") and path.startswith(n[:-4]) and n != path]
                    hint = f" (when {names[-1]} is {point[names[-1]]}: exclude it with `when:`)" if names else ""
                    problems.setdefault(path, f"{knobs[path].place}: {message}{hint}")
            if len(problems) > before:  # what is wrong with one knob must not hide what is wrong with another
                self._try(base, point, probed, problems)


def suggest(trial: TrialLike, space: Space) -> dict[str, Any]:
    """Ask `trial` for a value of every knob whose conditions hold. Parameter names are the dotted paths."""
    point: dict[str, Any] = {}
    for knob in space.knobs:
        if knob.asked(point):
            point[knob.path] = knob.ask(trial)
    return point


def apply(base: Experiment, point: Point) -> Experiment:
    """`base` with the values of `point`. Names are set first: another name gives a bare component.

    Raises `UserError` when the result is not a valid experiment.
    """
    return _build(base, point, dotted)


def arm_name(point: Point) -> str:
    """A readable name for a trial, at most 40 of [a-z0-9._-]: its components that change something, or `control`."""
    named = sorted((parts(path)[0] == "input", path) for path in point if path.endswith(".name"))
    if named:
        words = dict.fromkeys(str(point[path]) for _, path in named if point[path] not in PLAIN)
    else:
        words = {f"{path.rsplit('.', 1)[-1]}-{_short(value)}": None for path, value in sorted(point.items())}
    name = re.sub(r"[^a-z0-9._-]+", "-", "-".join(words).lower())[:40].strip("-._")
    return name or "control"


def load_space(path: str | FilePath) -> Space:
    """Read a space file; `Space.check` holds it against a config. Raises `UserError`, one line for each problem."""
    document = read(path)
    if not isinstance(document.data, dict):
        raise UserError(
            f"{document.name}:1: a space is a mapping of dotted paths, such as optim.lr: {{log: [1e-5, 1e-3]}}"
        )
    problems: list[str] = []
    knobs: dict[str, Knob] = {}
    for key, value in document.data.items():
        if key not in WORDS:
            try:
                knobs[key] = read_knob(key, value, document.where((key,)))
            except UserError as error:
                problems.append(f"{document.where((key,))}: {shown(key)[1:-1]}: {error}")
    if not problems and not knobs:
        problems = [f"{document.name}:1: the space has no knob"]
    if not problems:
        problems = list(wrong_conditions(knobs)) or list(_wrong_points(document, knobs))
    if problems:
        raise UserError("\n".join(problems[:MAX_LINES]))
    data = document.data
    return Space(
        name=FilePath(path).stem,
        knobs=tuple(ordered(knobs)),
        control=data.get("control") or {},
        start=tuple(data.get("start") or ()),
        places={word: document.where((word,)) for word in WORDS},
        description=str(data.get("description", "")),
        text=document.text,
    )


def _wrong_points(document: Document, knobs: Mapping[str, Knob]) -> Iterator[str]:
    data = document.data
    control, start = data.get("control") or {}, data.get("start") or []
    if not isinstance(data.get("description", ""), str):
        yield f"{document.where(('description',))}: description must be text"
    points: list[tuple[Path, Any]] = [(("control",), control)]
    if isinstance(start, list):
        points += [(("start", index), point) for index, point in enumerate(start)]
    else:
        yield f"{document.where(('start',))}: start is a list of points"
    for at, point in points:
        if not isinstance(point, dict):
            yield f"{document.where(at)}: {dotted(at)}: a point is a mapping of knobs to values, not {shown(point)}"
            continue
        for path, value in point.items():
            place = f"{document.where((*at, path))}: {dotted(at)}"
            if path not in knobs:
                yield f"{place}: {shown(path)} is no knob of this space, {did_you_mean(path, knobs)}"
            elif not knobs[path].holds(value):
                yield f"{place}: {path} = {shown(value)} is outside its domain ({knobs[path].domain()})"


def _check_start(space: Space, point: Point) -> None:
    """A first point may leave knobs to the searcher, but not those that its own knobs depend on."""
    for knob in space.knobs:
        if knob.path in point and not knob.asked(point):
            missing = [path for path in knob.when if path not in point]
            if missing:
                raise UserError(f"{knob.path} depends on {missing[0]}: give it a value too")
            raise UserError(f"{knob.path} is not asked there: its `when` does not hold")


def _refuse_change(experiment: Experiment, space: Space) -> None:
    """The control arm shows the model its rows as they are, or copies of them, and asks for plain cross-entropy."""
    augment = experiment.input.augment
    operations = [o for sub_policy in augment.policy for o in sub_policy] if augment.n_aug or augment.balance else []
    changing = [o.transform.name for o in operations if o.probability > 0 and o.transform.name not in PLAIN]
    if any(parts(knob.path)[:2] == ("input", "reconstruct") for knob in space.knobs):
        changing += [transform.name for transform in experiment.input.reconstruct if transform.name not in PLAIN]
    if changing:
        raise UserError(f"the control arm changes the text with {changing[0]}: set it to identity under `control:`")
    if any(parts(knob.path)[:2] == ("model", "prepare") for knob in space.knobs):
        preparing = [stage.name for stage in experiment.model.prepare if stage.steps]
        if preparing:
            raise UserError(f"the control arm begins with {preparing[0]}: set its steps to 0 under `control:`")
    asking = [t.objective.name for t in experiment.output.objectives if t.weight > 0 and t.objective.name not in PLAIN]
    if asking:
        raise UserError(f"the control arm learns {asking[0]}: set it to cross_entropy under `control:`")


def _build(base: Experiment, point: Point, where: Any) -> Experiment:
    spec = base.spec()
    for path in sorted(map(parts, point), key=lambda p: (p[-1] != "name", [str(x).zfill(4) for x in p])):
        try:
            assign(spec, path, point[dotted(path)], ("experiment",))
        except UserError as error:
            raise UserError(f"{where(path)}: {error}") from None
    try:
        experiment = Experiment.model_validate(spec)
    except ValidationError as error:
        raise UserError("\n".join(complaints(error, spec, where, ("experiment",)))) from None
    wrong = list(mistyped(spec, experiment.spec(), where))
    if wrong:
        raise UserError("\n".join(wrong))
    return experiment


def _current(spec: dict[str, Any], knob: Knob, otherwise: Any) -> Any:
    try:
        value = find(spec, parts(knob.path))
    except KeyError:
        return otherwise
    return value if knob.holds(value) else otherwise


def _related(knob: Path, path: Path) -> bool:
    """Whether an error at `path` is about the knob: at it, below it, or at the component that it names."""
    return path[: len(knob)] == knob or (knob[-1] == "name" and knob[:-1] == path)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
