"""The order of stages: which follows which, whether what a stage starts from has run by then, and where it all ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bothways.errors import UserError, did_you_mean
from bothways.loop.references import Reference
from bothways.loop.stages import GIVES, Adjustment, Evaluate, Stage

END = "end"


def following(stages: Sequence[Stage]) -> dict[str, str]:
    """What comes after each stage where nothing is adjusted."""
    after = [*(stage.name for stage in stages[1:]), END]
    return {stage.name: stage.then or after for stage, after in zip(stages, after, strict=True)}


def adjustments(stage: Stage) -> tuple[Adjustment, ...]:
    return stage.adjust if isinstance(stage, Evaluate) else ()


def check(stages: Sequence[Stage], references: Mapping[str, Sequence[Reference]]) -> None:
    """Raises `UserError`: two stages of one name, an unknown one, stages that follow each other for ever, or a stage
    that starts from one that has not run by then."""
    kinds: dict[str, str] = {}
    for stage in stages:
        if stage.name == END or stage.name in kinds:
            raise UserError(f"stage {stage.name!r}: the name is taken: choose another")
        kinds[stage.name] = stage.kind
    for stage in stages:
        for name in filter(None, [stage.then, *(one.then for one in adjustments(stage))]):
            if name != END and name not in kinds:
                raise UserError(
                    f"stage {stage.name!r}: then: unknown stage {name!r}: {did_you_mean(name, [*kinds, END])}"
                )
        for reference in references[stage.name]:
            for name in reference.names:
                if name not in kinds:
                    raise UserError(f"stage {stage.name!r}: {reference}: unknown stage: {did_you_mean(name, kinds)}")
                if reference.gift not in GIVES[kinds[name]]:
                    able = [other for other, kind in kinds.items() if reference.gift in GIVES[kind]]
                    raise UserError(
                        f"stage {stage.name!r}: {name!r} ({kinds[name]}) gives no {reference.gift}; those that do: "
                        f"{', '.join(able) or 'none'}"
                    )
    _check_ends(stages)
    _check_starts(stages, references)


def _check_ends(stages: Sequence[Stage]) -> None:
    """Adjustments are bounded by their rounds; what follows without one must lead to the end."""
    after = following(stages)
    for stage in stages:
        at = stage.name
        way: list[str] = []
        while at != END:
            if at in way:
                circle = " → ".join([*way[way.index(at) :], at])
                raise UserError(f"stages {circle} follow each other for ever: end one with `then: end`, or by `adjust`")
            way.append(at)
            at = after[at]


def _check_starts(stages: Sequence[Stage], references: Mapping[str, Sequence[Reference]]) -> None:
    """Whatever way leads to a stage, one of the stages of each reference has run on it."""
    before = _surely_before(stages)
    for stage in stages:
        if stage.name not in before:
            raise UserError(f"stage {stage.name!r} is never reached: name it in a `then`")
        for reference in references[stage.name]:
            if not before[stage.name] & set(reference.names):
                raise UserError(
                    f"stage {stage.name!r} starts from {reference}, which has not run by then: put it before, or name "
                    "with | one that has"
                )


def _surely_before(stages: Sequence[Stage]) -> dict[str, set[str]]:
    """The stages that have run on every way to a stage that is reached at all."""
    after = following(stages)
    ways: list[tuple[str, str]] = [(stage.name, after[stage.name]) for stage in stages]
    ways += [(stage.name, one.then) for stage in stages for one in adjustments(stage)]
    before: dict[str, set[str]] = {stages[0].name: set()}
    changed = True
    while changed:
        changed = False
        for start, end in ways:
            if start not in before or end == END:
                continue
            now = before[start] | {start}
            known = before.get(end)
            new = now if known is None else known & now
            if new != known:
                before[end], changed = new, True
    return before


@dataclass
class Flow:
    """A run of the loop: what has run, in order, and how often each adjustment was made."""

    stages: Sequence[Stage]
    ran: list[str] = field(default_factory=list)
    made: dict[tuple[str, int], int] = field(default_factory=dict)

    def last(self, names: Sequence[str]) -> str:
        """Which of some stages ran last."""
        return next(name for name in reversed(self.ran) if name in names)

    def round(self, name: str) -> int:
        """How often a stage has run before."""
        return self.ran.count(name)

    def after(self, stage: Stage, metrics: Mapping[str, float]) -> tuple[str, str]:
        """A stage has run, with these metrics: the name of the next one, and why, in words."""
        self.ran.append(stage.name)
        why = ""
        for number, one in enumerate(adjustments(stage)):
            done = self.made.get((stage.name, number), 0)
            if not one.when.holds(metrics):
                continue
            if done < one.rounds:
                self.made[stage.name, number] = done + 1
                return one.then, f"{one.when}: {one.then}, round {done + 1} of {one.rounds}"
            why = f"{one.when}, but all {one.rounds} rounds are used"
        return following(self.stages)[stage.name], why


def metrics_asked(stages: Sequence[Stage]) -> Iterator[tuple[Stage, str]]:
    """Every metric that a condition names."""
    for stage in stages:
        for one in adjustments(stage):
            yield stage, one.when.metric
