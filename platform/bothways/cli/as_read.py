"""The pages of `bothways check --rows`: training rows as the model reads them, token by token."""

from __future__ import annotations

import json
from collections.abc import Iterator

from bothways import assets, data
from bothways.batches.batching import Encode, evaluation_side, evaluation_views
from bothways.config import Experiment
from bothways.contracts import NO_LABEL
from bothways.tokenization import tokenizer


def as_read(experiment: Experiment, rows: int) -> Iterator[str]:
    """What there is to say of the data; then what becomes of the first `rows` training rows without augmentation, and,
    of a target that is written, what is learnt.

    Texts are decoded from their tokens, with the special ones, as JSON strings.
    """
    dataset = data.load(experiment.data, None, experiment.task)
    yield from (f"note     {note}" for note in dataset.notes)
    path = str(assets.resolve(experiment.model.source))
    fast = tokenizer(path)
    encode = Encode(
        tokenizer_path=path,
        max_length=experiment.model.max_length,
        paired=experiment.data.pair is not None,
        side=evaluation_side(experiment.input),
        language=experiment.data.language,
        seed=experiment.seed,
        task=experiment.task,
        start=fast.pad_token_id or 0,
    )
    encoded = encode(evaluation_views(dataset.train.slice(0, rows)))
    numbers = experiment.task.begins(encoded).cumsum().tolist()  # windows of a row have its number
    columns = (encoded[column].to_pylist() for column in ("input_ids", "label"))
    for number, ids, label in zip(numbers, *columns, strict=True):
        if not experiment.task.writes:
            yield f"row {number}, {len(ids)} tokens: {_text(fast.decode(ids))}"
            continue
        learnt = [token for token in label if token != NO_LABEL]
        read = ids[: -len(learnt)] if ids[-len(learnt) :] == learnt else ids  # a decoder reads what it has written
        yield f"row {number}, {len(ids)} tokens: {_text(fast.decode(read))}\n  learns: {_text(fast.decode(learnt))}"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
