"""Rows beside the batch: which ones, in what order, shared by how many workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bothways.batches import batching, planning
from bothways.config import Augment, Run
from bothways.contracts import NO_LABEL, Beside
from bothways.edges import local
from bothways.errors import UserError
from bothways.training.trial import Trial
from bothways.training.workspace import Workspace
from tests import tiny

LENGTHS = np.arange(3, 23)
UNLABELLED, LABELLED = Beside(per_row=2, changed=True), Beside(source="labelled")
POOLS = [planning.Pool(UNLABELLED, (20, 20), np.arange(5, 18)), planning.Pool(LABELLED, (0,), LENGTHS)]


def plan(steps: int = 13, seed: int = 1) -> planning.Plan:
    first = planning.plan(LENGTHS, Augment(n_aug=1), batch_size=4, steps=steps, seed=seed)
    return planning.with_beside(first, POOLS, seed)


def test_every_step_has_its_rows_and_then_what_is_beside_them() -> None:
    whole, first = plan(), planning.plan(LENGTHS, Augment(n_aug=1), batch_size=4, steps=13, seed=1)
    assert whole.row.shape == (13, 4 + 2 * 8 + 4)
    assert np.array_equal(whole.row[:, :4], first.row)
    originals, changed, labelled = whole.row[:, 4:12], whole.row[:, 12:20], whole.row[:, 20:]
    assert np.array_equal(originals, changed)
    assert set(whole.copy[:, 4:12].ravel()) == {0}
    assert set(whole.copy[:, 12:20].ravel()) == {1}
    assert originals.min() >= 20
    counts = np.bincount(originals.ravel() - 20, minlength=13)  # 104 views of 13 rows: eight epochs
    assert set(counts) == {8}
    assert labelled.max() < 20


def test_two_workers_share_every_kind_evenly_and_lose_no_row() -> None:
    whole = plan()
    left, right = whole.share(0, 2), whole.share(1, 2)
    for start, stop in ((0, 4), (4, 12), (12, 20), (20, 24)):
        mine = np.hstack([part.row[:, start // 2 : stop // 2] for part in (left, right)])
        assert np.array_equal(np.sort(mine), np.sort(whole.row[:, start:stop]))


def test_a_step_is_collated_into_the_batch_and_its_kinds() -> None:
    table = pa.concat_tables([tiny.rows(20, seed=1), tiny.without_labels(tiny.rows(13, seed=2, first_id=100))])
    encode = batching.Encode(tokenizer_path=tiny.model_dir(), max_length=24, paired=False)
    step = encode(plan(steps=1).views(table).slice(0, 24))
    batch = batching.collate_step(step, 0, [UNLABELLED, LABELLED])
    originals, changed = batch.beside[UNLABELLED]
    (labelled,) = batch.beside[LABELLED]
    assert (len(batch), len(originals), len(changed), len(labelled)) == (4, 8, 8, 4)
    assert set(originals.labels.tolist()) == {NO_LABEL}
    assert set(labelled.labels.tolist()) <= {0, 1}
    assert originals.inputs["input_ids"].shape[1] == batch.inputs["input_ids"].shape[1]
    half = batch.slice(2, 4)
    assert half.beside[UNLABELLED][1].inputs["input_ids"].equal(changed.inputs["input_ids"][4:8])
    joined = batch.join(changed, labelled)
    assert len(joined) == 16
    assert joined.labels[12:].equal(labelled.labels)


def test_data_without_unlabelled_text_are_refused_in_one_line(tmp_path: Path, workspace: Workspace) -> None:
    whole = tiny.dataset()
    data = replace(whole, unlabelled=whole.unlabelled.slice(0, 0), digest="without unlabelled text")
    what = tiny.experiment(output={"objectives": [{"name": "consistency"}]})
    with pytest.raises(UserError, match="reads unlabelled text beside the labelled rows, and the data have none"):
        list(tiny.trial(what, tmp_path, workspace, data).reports())


class OneOfTwo(local.OneWorker):
    world = 2


def test_a_batch_that_workers_cannot_share_is_refused_whatever_is_beside_it(
    tmp_path: Path, workspace: Workspace
) -> None:
    what = tiny.experiment(output={"objectives": [{"name": "coral"}]}, optim={"batch_size": 3})  # six rows in all
    ways = {"execute": local.execute, "workspace": workspace, "directory": tmp_path}
    trial = Trial(what, tiny.dataset(), collective=OneOfTwo(), **ways)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="batch_size 3 cannot be divided by 2 workers"):
        list(trial.reports())


def test_tokens_beside_the_batch_are_counted(tmp_path: Path, workspace: Workspace) -> None:
    plain, more = (
        local.run(
            tiny.experiment(output={"objectives": [name]}, optim={"steps": 5}),
            Run(),
            trial_id=name,
            directory=tmp_path / name,
            dataset=tiny.dataset(),
            workspace=workspace,
        ).last
        for name in ("cross_entropy", "consistency")
    )
    assert 2.5 < more["cost/tokens"] / plain["cost/tokens"] < 3.5
    assert more["cost/passes"] / plain["cost/passes"] == pytest.approx((3 + 2 * 2) / 3)
