"""Loop files: what follows what, what starts from what, and that a mistake is one line with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bothways.errors import UserError
from bothways.loop import END, Flow, load_loop
from bothways.loop.references import digest, replaced
from bothways.loop.stages import When

GOOD = """\
name: demo
stages:
  - name: adapt
    kind: prepare
    pipeline: {experiment: {data: {source: rows.csv}}}
  - name: words
    kind: lexicon
    source: {source: a.csv}
    target: {source: b.csv}
    model: stage:adapt
  - name: fit
    kind: train
    pipeline: stage:adapt
    overrides:
      experiment.model.source: stage:adapt
      experiment.optim.steps: 7
      experiment.input.reconstruct: [{name: lexicon_map, path: "stage:words"}]
  - name: score
    kind: evaluate
    model: stage:fit|again
    pipeline: stage:fit
    adjust:
      - {when: {metric: accuracy, below: 0.5}, then: adapt}
      - {when: {metric: log_loss, above: 0.2}, then: ask, rounds: 2}
    then: end
  - name: ask
    kind: suggest_labels
    model: stage:fit|again
    texts: {source: more.csv}
    count: 3
  - name: again
    kind: train
    pipeline: stage:fit
    overrides: {experiment.data.source: "stage:ask", experiment.model.source: "stage:again|fit"}
    then: score
run: {threads: 2}
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def written(text: str) -> Path:
        file = tmp_path / "l.yaml"
        file.write_text(text, encoding="utf-8")
        return file

    return written


def test_a_stage_has_its_pipeline_and_what_it_starts_from(write: Any) -> None:
    loop = load_loop(write(GOOD), ["run.storage=elsewhere"])
    assert (loop.run.storage, loop.run.threads) == ("elsewhere", 2)
    assert loop.pipelines["fit"].experiment.optim.steps == 7
    assert loop.pipelines["again"].experiment.optim.steps == 7
    assert loop.pipelines["adapt"].experiment.optim.steps != 7
    found = {name: [(one.gift, one.names) for one in of] for name, of in loop.references.items()}
    assert found["fit"] == [("model", ("adapt",)), ("lexicon", ("words",))]
    assert found["again"] == [("rows", ("ask",)), ("model", ("again", "fit")), ("lexicon", ("words",))]
    assert found["words"] == [("model", ("adapt",))]
    assert found["adapt"] == []
    spec = replaced(loop.pipelines["again"].experiment.spec(), lambda one: f"/{one.gift}/{one.names[0]}")
    assert (spec["data"]["source"], spec["model"]["source"]) == ("/rows/ask", "/model/again")
    assert loop.pipelines["again"].experiment.data.source == "stage:ask"


def test_what_is_found_decides_what_follows_and_rounds_run_out(write: Any) -> None:
    loop = load_loop(write(GOOD))
    flow, at, way = Flow(loop.stages), "adapt", []
    good, poor, bad = ({"accuracy": a, "log_loss": b} for a, b in ((0.9, 0.1), (0.7, 0.3), (0.4, 0.1)))
    found = iter([bad, poor, poor, poor, good])
    while at != END:
        way.append(at)
        at, why = flow.after(loop.stage(at), next(found) if at == "score" else {})
    first = ["adapt", "words", "fit", "score"]
    assert way == [*first, *first, *["ask", "again", "score"] * 2]
    assert why == "log_loss above 0.2, but all 2 rounds are used"
    assert (flow.last(("fit", "again")), flow.round("again")) == ("again", 2)


def test_a_condition_may_have_two_ends() -> None:
    between = When(metric="accuracy", above=0.5, below=0.8)
    assert [between.holds({"accuracy": value}) for value in (0.5, 0.6, 0.8)] == [False, True, False]
    assert str(between) == "accuracy below 0.8 and above 0.5"


@pytest.mark.parametrize(
    ("right", "wrong", "line"),
    [
        ("kind: lexicon", "kind: lexikon", "l.yaml:7: unknown kind of stage 'lexikon': did you mean 'lexicon'?"),
        ("    count: 3", "    cuont: 3", "l.yaml:30: unknown key 'cuont': did you mean 'count'?"),
        ("    count: 3", "    count: '3'", "l.yaml:30: count: must be a number, not '3'"),
        ("{source: more.csv}", "{sauce: more.csv}", "l.yaml:29: unknown key 'sauce': did you mean 'source'?"),
        ("{metric: accuracy, below", "{metric: accuracy, belw", "unknown key 'belw': did you mean 'below'?"),
        ("accuracy, below: 0.5", "acuracy, below: 0.5", "adjust: unknown metric 'acuracy': did you mean 'accuracy'?"),
        ("accuracy, below: 0.5", "accuracy", "a condition is {metric: …, below: …}"),
        ("then: adapt", "then: adopt", "stage 'score': then: unknown stage 'adopt': did you mean 'adapt'?"),
        (
            "pipeline: stage:fit\n    adj",
            "pipeline: stage:fitt\n    adj",
            "no earlier stage of that name has a pipeline",
        ),
        ("source: stage:adapt\n", "source: stage:adept\n", "stage:adept: unknown stage: did you mean 'adapt'?"),
        ('path: "stage:words"', 'path: "stage:fit"', "'fit' (train) gives no lexicon; those that do: words"),
        (
            "    model: stage:adapt",
            "    model: stage:again",
            "'words' starts from stage:again, which has not run by then",
        ),
        ("stage:again|fit", "stage:again", "stage 'again' starts from stage:again, which has not run by then"),
        ("    then: end", "    then: fit", "stages fit → score → fit follow each other for ever"),
        ("name: again", "name: fit", "stage 'fit': the name is taken"),
        ("steps: 7", "stepz: 7", "experiment.optim.stepz"),
        (
            "    overrides: {exp",
            "    overrides: {run.threads: 2, exp",
            "override 'run.threads': begins with experiment",
        ),
        ("rows.csv}}}", "rows.csv}}, run: {}}", "unknown key 'run': a stage's pipeline has experiment and search"),
        ("kind: train\n    pipeline: stage:fit", "kind: tune\n    pipeline: stage:fit", "has no `search:` section"),
        ("  - name: ask", "  - ask\n  - name: ask", "l.yaml:26: a stage is a mapping with name and kind, not 'ask'"),
        ("run: {threads: 2}", "run: {threadz: 2}", "l.yaml:36: unknown key 'threadz': did you mean 'threads'?"),
        (
            "experiment.optim.steps: 7",
            "experiment.data.text: 'stage:words'",
            "data.text: 'stage:words' cannot stand here",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_way_out(write: Any, right: str, wrong: str, line: str) -> None:
    assert GOOD.count(right) >= 1
    file = write(GOOD.replace(right, wrong, 1))
    with pytest.raises(UserError) as refusal:
        load_loop(file)
    said = str(refusal.value).replace(f"{file}", "l.yaml")
    assert line in said
    assert len(said.splitlines()) == 1


def test_a_stage_that_no_way_leads_to_is_named(write: Any) -> None:
    text = GOOD.replace("then: ask, rounds: 2", "then: fit, rounds: 2").replace("stage:fit|again", "stage:fit")
    with pytest.raises(UserError, match="stage 'ask' is never reached: name it in a `then`"):
        load_loop(write(text))


def test_a_digest_follows_from_content_alone() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
