"""What every member of the input side is: a component that reads a batch of texts and returns a changed one."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, ClassVar

import numpy as np
from pydantic import AfterValidator, Field

from bothways.config import Language, Protect
from bothways.errors import UserError, did_you_mean
from bothways.input_side.lookup import WordSet
from bothways.input_side.protection import protect
from bothways.input_side.statistics import Statistics
from bothways.registry import TRANSFORMS, Component
from bothways.seeding import F64, U64, below, keys, streams
from bothways.text import Bools, Ints, Segmentation, TextBatch, true_at


@dataclass(frozen=True, kw_only=True)
class InputContext:
    """What a transform may know besides its batch.

    `slot`: the transform's place in the policy; it enters every draw. `statistics`: of the training rows, or None.
    `model`: the source of the model that is trained, or nothing where there is none.
    `strength`: float (R,) in [0, 1], multiplies each row's magnitude; 0 leaves the row alone. None stands for ones.
    `label_words`: those to protect beside `protect`; an augmentation's only, for what is served has no labels.
    """

    language: Language = "en"
    slot: str = ""
    statistics: Statistics | None = None
    protect: Protect = field(default_factory=Protect)
    segmentation: Segmentation = "character"
    strength: F64 | None = None
    label_words: WordSet | None = None
    model: str = ""

    def read(self, texts: Sequence[str], row_keys: U64) -> TextBatch:
        """Segments texts and marks their protected words."""
        return self.guarded(protect(TextBatch.from_texts(texts, row_keys, self.segmentation), self.protect))

    def guarded(self, batch: TextBatch) -> TextBatch:
        """The batch with its label words protected too."""
        if self.label_words is None:
            return batch
        words = np.flatnonzero(batch.free)
        return batch.protecting(words[self.label_words.holds(*batch.words(words))])

    def fresh(self, batch: TextBatch) -> TextBatch:
        """The batch read again where words have moved: for methods that look for patterns in the text as it stands."""
        return self.read(batch.texts(), batch.keys) if batch.changed.any() else batch

    def row_keys(self, batch: TextBatch, purpose: str = "") -> U64:
        """This transform's own 64-bit key for each row, (R,)."""
        return keys(batch.keys, self.slot, purpose)

    def active(self, batch: TextBatch) -> Ints:
        """The rows this transform may change."""
        return np.arange(len(batch)) if self.strength is None else np.flatnonzero(self.strength > 0)

    def vocabulary(self, name: str) -> Statistics:
        """The statistics, which the transform `name` cannot do without. Raises `UserError` when there are none."""
        if self.statistics is None or not len(self.statistics):
            raise UserError(f"{name} takes words from the training rows, and they have none")
        return self.statistics

    def rewritten(self, batch: TextBatch, texts: Sequence[str]) -> TextBatch:
        """The batch with whole texts replaced (for methods that work on strings); a blank result is refused, and
        rows that stayed equal stay the originals. What a span of a rewritten text became, nobody knows."""
        before = batch.texts()
        after = [new if new.strip() else old for new, old in zip(texts, before, strict=True)]
        if after == before:
            return batch
        return replace(self.read(after, batch.keys), earlier=batch)


def losing(batch: TextBatch, texts: Sequence[str]) -> Ints:
    """The rows whose protected words would not all be there in these texts."""
    rows = np.flatnonzero(batch.per_row(batch.protected)) if len(batch) else np.empty(0, dtype=np.int64)
    before = batch.tokens() if rows.size else []
    lost = []
    for row in rows.tolist():
        mask = batch.protected[batch.offsets[row] : batch.offsets[row + 1] - 1].tolist()
        needed = Counter(word for word, kept in zip(before[row], mask, strict=True) if kept)
        if needed - Counter(TextBatch.from_texts([texts[row]]).tokens()[0]):
            lost.append(row)
    return np.array(lost, dtype=np.int64)


def keeping_protected(batch: TextBatch, texts: list[str], context: InputContext) -> TextBatch:
    """The batch with these texts, but for rows that would lose a protected word."""
    before = batch.texts()
    lost = set(losing(batch, texts).tolist())
    return context.rewritten(
        batch, [old if row in lost else new for row, (old, new) in enumerate(zip(before, texts, strict=True))]
    )


class Transform(Component):
    """A change of what the model reads.

    The result of a row depends on its key, the slot and the row's text only: never on the batch around it. No text
    becomes empty; protected words survive; with the `neutral` knobs every text stays what it was.
    `train_only`: an augmentation, never applied at evaluation. `languages`: those it can read. `loads_model`: it has a
    language model write, which takes memory and time of another order. `takes_examples`: it asks for the training rows.
    """

    train_only: ClassVar[bool] = True
    languages: ClassVar[tuple[str, ...]] = ("en", "zh")
    takes_examples: ClassVar[bool] = False

    @property
    def loads_model(self) -> bool:
        return False

    @abstractmethod
    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch: ...


@dataclass(frozen=True)
class Draw:
    """Random numbers of a batch's tokens.

    `bits`: uint64 (T,), 64 random bits per token. `taken`: bool (T,), the tokens that were drawn.
    """

    bits: U64
    taken: Bools

    @cached_property
    def tokens(self) -> Ints:
        """Which were drawn, in order."""
        return true_at(self.taken)


_ONE = 2.0**53


def draw(batch: TextBatch, context: InputContext, p: float | F64, among: Bools | None = None) -> Draw:
    """Draws each free word (or each token of `among`) with probability `p` (one, or one per token) times its row's
    strength."""
    bits = streams(context.row_keys(batch), batch.sizes)
    if context.strength is not None:
        p = np.repeat(context.strength, batch.sizes) * p
    taken = chosen(bits, p)
    taken &= batch.free if among is None else among
    return Draw(bits, taken)


def chosen(bits: U64, p: float | F64) -> Bools:
    """True with probability `p` (one, or one for each of `bits`)."""
    bound = np.ceil(np.multiply(p, _ONE)).astype(np.uint64)
    if bound.ndim or bound == _ONE:
        return np.asarray((bits >> np.uint64(11)) < bound)
    return np.asarray(bits < bound << np.uint64(11))  # the same, in one step


def again(bits: U64, purpose: str) -> U64:
    """Fresh 64 bits from each of `bits`, independent of them and of every other `purpose`."""
    return keys(bits, purpose)


def _is_transform(name: str) -> str:
    if name not in TRANSFORMS.names():
        raise ValueError(f"unknown transform {name!r}: {did_you_mean(name, TRANSFORMS.names())}")
    return name


Operations = Annotated[tuple[Annotated[str, AfterValidator(_is_transform)], ...], Field(min_length=1)]
"""Names of transforms that have a `p`."""
BASIC_OPERATIONS: Operations = ("random_deletion", "random_swap", "random_insertion", "synonym_replacement")
"""EDA's four (Wei & Zou 2019)."""


def drawn_rows(batch: TextBatch, context: InputContext, p: float) -> Ints:
    """The rows that are drawn with probability `p` times their strength and have a text."""
    chance = p if context.strength is None else p * context.strength
    taken = np.flatnonzero(chosen(context.row_keys(batch, "row"), chance))
    return taken[batch.sizes[taken] > 1]


def mixture(batch: TextBatch, context: InputContext, operations: Sequence[str], p: float) -> TextBatch:
    """Applies to each row one of the named transforms, drawn uniformly, at magnitude `p` (times its strength)."""
    which = below(context.row_keys(batch, "operation"), len(operations))
    strength = np.ones(len(batch)) if context.strength is None else context.strength
    for i, name in enumerate(operations):
        transform = TRANSFORMS.build({"name": name, "p": p})
        batch = transform(batch, replace(context, slot=f"{context.slot}/{i}.{name}", strength=strength * (which == i)))
    return batch
