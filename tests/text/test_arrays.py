"""Array arithmetic of a batch, against the plain way to say the same."""

from __future__ import annotations

import numpy as np
import pytest

from bothways.text import gathered, ragged, spans, true_at


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.04, 0.08, 0.1, 0.11, 0.5, 1.0])
@pytest.mark.parametrize("size", [0, 1, 30, 5000])
def test_a_mask_is_set_where_it_is_set(share: float, size: int) -> None:
    mask = np.random.default_rng(size).random(size) < share
    assert true_at(mask).tolist() == [place for place, here in enumerate(mask.tolist()) if here]


def test_the_last_places_of_a_mask_count() -> None:
    mask = np.zeros(1000, dtype=bool)
    mask[-50:] = True
    assert true_at(mask).tolist() == list(range(950, 1000))


@pytest.mark.parametrize("longest", [1, 5, 3000])  # the last: more numbers than are kept counted
def test_spans_are_gathered_one_after_the_other(longest: int) -> None:
    draws = np.random.default_rng(longest)
    starts, lengths = draws.integers(0, 1000, 300), draws.integers(0, longest + 1, 300)
    codes = draws.integers(0, 256, 5000).astype(np.uint8)
    expected = [place for start, length in zip(starts, lengths, strict=True) for place in range(start, start + length)]
    assert ragged(starts, lengths).tolist() == spans(starts, starts + lengths).tolist() == expected
    assert gathered(codes, starts, starts + lengths).tolist() == codes[expected].tolist()
