"""The proof that both sides are worth it: input side off and on x output side off and on, at equal optimiser steps.

    none        plain rows, cross-entropy
    copies      the same with as many copies of the rows as `input` has, unchanged
    input       the experiment's input side, cross-entropy
    output      plain rows, the experiment's output side
    both        the experiment

The input side is `input` and `model.prepare`; the output side is the objectives and how they are weighed. What may move
(`output.trainable`), the optimiser and the data are those of the experiment in all arms. Arms are paired by seed and by
test row; the synergy is both - input - output + none: what the sides give together beyond what they give one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bothways import analysis, learning_curve, policy
from bothways.analysis import Hits
from bothways.config import Augment, Experiment, InputSide, Operation, OutputSide
from bothways.errors import UserError
from bothways.learning_curve import LearningCurve, Worth
from bothways.registry import Component
from bothways.results import Estimate

CONTROLS = ("none", "copies")


def arms(experiment: Experiment) -> dict[str, Experiment]:
    """The arms that can be told apart, by name, `none` first. Raises `UserError` where nothing is to be compared."""
    reads, asks = not _input_is_plain(experiment), not _output_is_plain(experiment.output)
    if not reads and not asks:
        raise UserError(
            "there is nothing to compare: the experiment is plain on both sides. Give it a policy or objectives, or "
            "one that was found: --experiment runs/…/best.yaml"
        )
    unchanged = {"policy": [["identity"]]}
    copying = InputSide(augment=Augment(**experiment.input.augment.model_dump(mode="json") | unchanged))
    plain_model = experiment.model.model_copy(update={"prepare": ()})
    plain_input: dict[str, Any] = {"input": InputSide(), "model": plain_model}
    plain_output = {"output": OutputSide(trainable=experiment.output.trainable)}
    wanted = {
        "none": {**plain_input, **plain_output},
        "copies": {**plain_input, "input": copying, **plain_output} if policy.augments(experiment.input) else None,
        "input": plain_output if reads else None,
        "output": plain_input if asks else None,
        "both": {} if reads and asks else None,
    }
    return {
        name: Experiment(**experiment.model_copy(update=change).spec())
        for name, change in wanted.items()
        if change is not None
    }


def remarks(experiment: Experiment, arms: Mapping[str, Experiment]) -> list[str]:
    """What a reader must know of these arms, a sentence each."""
    found = []
    if "both" not in arms:
        plain, other = ("output", "input") if "input" in arms else ("input", "output")
        found.append(f"The {plain} side of this experiment is plain: only its {other} side is compared.")
    if "input" in arms and "copies" not in arms:
        found.append("The input side makes no copies of rows: there is no arm of plain copies.")
    if "output" in arms and any(kind.changed for kind in experiment.output.beside):
        found.append("Its objectives compare texts with changed copies; in the arm `output` these are unchanged.")
    if experiment.output.trainable.name != "full":
        found.append(f"All arms train `{experiment.output.trainable.name}`.")
    return found


@dataclass(frozen=True, kw_only=True)
class Arm:
    """`by_seed`: its score with each seed. `test`: their mean. `over`: its gain over each control that was trained."""

    by_seed: tuple[float, ...]
    test: Estimate
    over: Mapping[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`arms`: by name. `synergy`: None where one side is plain. `curve`: plain training by the number of training rows,
    empty where there is none. `worth`: of each arm that is no control, in labelled examples."""

    arms: Mapping[str, Arm]
    synergy: Estimate | None
    curve: Mapping[int, Arm]
    worth: Mapping[str, Worth]


def compare(hits: Mapping[str, Hits], curve: Mapping[int, Hits]) -> Comparison:
    """`hits`: each arm's scores of S seeds and N test rows, (S, N), the same seeds and rows in the same order. `curve`:
    those of the arm `none` with so many training rows, its own number included; fewer than two points are no curve."""
    found = {name: _arm(name, hits) for name in hits}
    points = {rows: _arm("none", {"none": scores}) for rows, scores in sorted(curve.items())} if len(curve) > 1 else {}
    read = LearningCurve.of(curve) if points else None
    worth = {name: read.worth(hits[name]) for name in hits if read and name not in CONTROLS}
    synergy = None
    if "both" in hits:
        both, with_input, with_output, none = (
            np.asarray(hits[name], dtype=np.float64) for name in ("both", "input", "output", "none")
        )
        synergy = analysis.estimate(both - with_input - with_output + none)
    return Comparison(arms=found, synergy=synergy, curve=points, worth=worth)


def _arm(name: str, hits: Mapping[str, Hits]) -> Arm:
    mine = np.asarray(hits[name], dtype=np.float64)
    others = [other for other in CONTROLS if other in hits and other != name and name != "none"]
    return Arm(
        by_seed=tuple(mine.mean(axis=1).tolist()),
        test=analysis.estimate(mine),
        over={other: analysis.difference(mine, hits[other]) for other in others},
    )


# -- in words -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What was compared, for the reader: `rows` are test rows, `seeds` those that all arms got through."""

    title: str
    experiment: Experiment
    seeds: tuple[int, ...]
    rows: int
    remarks: tuple[str, ...]

    @property
    def score(self) -> str:
        return str(self.experiment.task.score)


def markdown(found: Comparison, setting: Setting) -> str:
    """The arms' table, the synergy, the learning curve and the honest sentences."""
    many = "s" * (len(setting.seeds) > 1)
    about = (
        f"{len(setting.seeds)} fresh seed{many} an arm, {setting.experiment.optim.steps} optimiser steps each, "
        f"{setting.rows:,} test rows; differences are paired by seed and by row. Every interval is a 95 % one."
    )
    return "\n".join(
        [
            *(f"# {setting.title}", "", *_sides(setting.experiment, found), ""),
            *(about, "", *_table(found, setting.score), ""),
            *(line for sentence in _sentences(found, setting) for line in (sentence, "")),
            *_curve(found, setting.score),
            *_by_seed(found, setting),
        ]
    )


def _sides(experiment: Experiment, found: Comparison) -> Iterator[str]:
    side = experiment.input
    if "input" in found.arms:
        parts = [f"prepared by {_named(each)}" for each in experiment.model.prepare]
        parts += [_named(each) for each in side.reconstruct]
        parts += [f"{side.sample_mixing.weight:g} of each batch from other domains"] * bool(side.sample_mixing.weight)
        if policy.augments(side):
            operations = [" then ".join(map(_operation, steps)) for steps in side.augment.policy]
            instead = "" if side.augment.keep_original else ", without the originals"
            copies = "1 copy" if side.augment.n_aug == 1 else f"{side.augment.n_aug} copies"
            balanced = " of the commonest class, more of the others" * side.augment.balance
            parts.append(f"{copies} of each row{balanced}, changed by {' or '.join(operations)}{instead}")
        yield f"- input side: {', '.join(parts)}"
    if "output" in found.arms:
        terms = [f"{term.weight:g} x {_named(term.objective)}" for term in experiment.output.terms]
        yield f"- output side: {' + '.join(terms)}, {_named(experiment.output.weighting)}"


def _operation(step: Operation) -> str:
    return _named(step.transform) + f" for {100 * step.probability:.0f} %" * (step.probability < 1)


def _named(part: Component) -> str:
    """Its name, its numbers, and the words and switches that are not as they are by default."""

    def shown(knob: str, value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number or (isinstance(value, str | bool) and value != type(part).model_fields[knob].default)

    knobs = [f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in part if shown(k, v)]
    return f"`{part.name}`" + f" ({', '.join(knobs)})" * bool(knobs)


def _table(found: Comparison, score: str) -> Iterator[str]:
    controls = [name for name in CONTROLS if any(name in arm.over for arm in found.arms.values())]
    yield f"| arm | {score} | {' | '.join(f'gain over `{name}`' for name in controls)} |"
    yield "|---" * (2 + len(controls)) + "|"
    for name, arm in found.arms.items():
        gains = [_points(arm.over[control]) if control in arm.over else "" for control in controls]
        yield f"| `{name}` | {arm.test} | {' | '.join(gains)} |"


def _points(gain: Estimate) -> str:
    return f"{100 * gain.mean:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"


def _sentences(found: Comparison, setting: Setting) -> Iterator[str]:
    many, score = len(setting.seeds), setting.score
    name = list(found.arms)[-1]
    over = found.arms[name].over
    yield f"**`{name}` against `none`.** {analysis.verdict(over['none'], many, score)}"
    if "copies" in over:
        yield f"**`{name}` against plain copies.** {analysis.verdict(over['copies'], many, score)}"
    if found.synergy:
        yield f"**Synergy** (both - input - output + none). {_on_synergy(found.synergy, many, score)}"
    yield from setting.remarks


def _on_synergy(synergy: Estimate, seeds: int, score: str) -> str:
    said = analysis.verdict(synergy, seeds, score)
    for theirs, ours in {
        "It helped:": "The sides do more together than one by one:",
        "It hurt:": "The sides do less together than one by one:",
        "No gain that can be told from chance:": "None that can be told from chance:",
    }.items():
        said = said.replace(theirs, ours)
    return said


def _curve(found: Comparison, score: str) -> Iterator[str]:
    if not found.curve:
        return
    yield "What the arms are worth in labelled examples, by plain training with more of them (as many steps):"
    yield from ("", f"| training rows | {score} of `none` |", "|---|---|")
    for rows, point in found.curve.items():
        yield f"| {rows:,} | {point.test} |"
    yield ""
    yield from (f"- {learning_curve.sentence(name, worth)}" for name, worth in found.worth.items())
    yield ""


def _by_seed(found: Comparison, setting: Setting) -> Iterator[str]:
    base = min(found.curve, default=0)
    rows = {f"`{name}`": arm for name, arm in found.arms.items()}
    rows |= {f"`none`, {size:,} rows": point for size, point in found.curve.items() if size != base}
    yield f"By seed, {setting.score}, %:"
    yield from ("", f"| arm | {' | '.join(map(str, setting.seeds))} |", "|---" * (1 + len(setting.seeds)) + "|")
    for name, arm in rows.items():
        yield f"| {name} | {' | '.join(f'{100 * value:.1f}' for value in arm.by_seed)} |"
    yield ""


# -- what is plain --------------------------------------------------------------------------------------------------


def _input_is_plain(experiment: Experiment) -> bool:
    side = experiment.input
    untouched = all(map(_is_neutral, [*side.reconstruct, *experiment.model.prepare]))
    return untouched and not side.sample_mixing.weight and not policy.augments(side)


def _output_is_plain(side: OutputSide) -> bool:
    return side.weighting.name == "weighted_sum" and all(_is_neutral(term.objective) for term in side.terms)


def _is_neutral(part: Component) -> bool:
    """Whether it is set to do nothing."""
    return bool(part.neutral) and all(getattr(part, knob) == value for knob, value in part.neutral.items())
