"""Classification scores as sums that add up over batches and workers, divided once at the end.

Averaging the workers' averages would weigh rows unequally as soon as their shares differ; sums cannot.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from bothways.lazy import functional, torch

if TYPE_CHECKING:
    from torch import Tensor

CALIBRATION_BINS = 15
"""Equal parts of [0, 1] for the calibration error, as in Guo et al. 2017."""
RANKING_BINS, FEWEST_BINS, FARTHEST = 8192, 64, 16.0
"""For the area under the ROC curve, log-odds within ±`FARTHEST` fall into so many equal bins, shared by all classes,
yet so many at least for each; what is farther falls into the last one. Two rows in one bin count as a tie."""

DIRECTIONS: Mapping[str, Literal["max", "min"]] = {
    "accuracy": "max",
    "precision": "max",
    "recall": "max",
    "f1": "max",
    "macro_f1": "max",
    "micro_f1": "max",
    "mcc": "max",
    "auroc": "max",
    "ece": "min",
    "log_loss": "min",
}


def classification_width(classes: int) -> int:
    """How many numbers `classification_sums` are."""
    return classes * classes + 2 + 2 * CALIBRATION_BINS + 2 * _ranked(classes) * _bins(classes)


def _ranked(classes: int) -> int:
    """Classes whose rows are ranked: of two, the second's ranking is the first's, too."""
    return 1 if classes == 2 else classes


def _bins(classes: int) -> int:
    return max(FEWEST_BINS, RANKING_BINS // _ranked(classes))


def classification_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Float64 vector (`classification_width`,) on the CPU: the confusion matrix (true class by row); of each
    calibration bin its hits and confidences; of each class, rows of others and of its own by bins of their log-odds;
    the log-loss sum, the rows.

    `logits` (N, C), `labels` int64 (N,).
    """
    classes = logits.shape[1]
    logs, labels = torch.log_softmax(logits.detach().double().cpu(), dim=1), labels.cpu()
    predicted = logits.argmax(dim=1).cpu()
    confusion = torch.bincount(labels * classes + predicted, minlength=classes * classes).double()
    loss = functional.nll_loss(logs, labels, reduction="sum")
    rows = torch.tensor([float(len(labels))], dtype=torch.float64)
    return torch.cat([confusion, _calibration(logs, predicted == labels), _ranks(logs, labels), loss[None], rows])


def _calibration(logs: Tensor, right: Tensor) -> Tensor:
    confidence = logs.max(dim=1).values.exp().clamp(max=1.0)
    place = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    sums = (right.double(), confidence)
    return torch.cat([torch.bincount(place, weights=part, minlength=CALIBRATION_BINS) for part in sums])


def _ranks(logs: Tensor, labels: Tensor) -> Tensor:
    classes = logs.shape[1]
    ranked, bins = _ranked(classes), _bins(classes)
    of = torch.arange(classes - ranked, classes)
    own = logs[:, of]
    odds = own - torch.log(-torch.expm1(own))
    place = ((odds.clamp(-FARTHEST, FARTHEST) + FARTHEST) * (bins / (2 * FARTHEST))).long().clamp(max=bins - 1)
    cells = ((labels[:, None] == of) * ranked + torch.arange(ranked)) * bins + place
    return torch.bincount(cells.flatten(), minlength=2 * ranked * bins).double()


def classification_metrics(sums: Tensor) -> dict[str, float]:
    """The scores of `DIRECTIONS` from added-up `classification_sums`; names and definitions are scikit-learn's.

    `precision`, `recall`, `f1`: of two classes those of the second one, in their order; of more, the mean over classes.
    A class that is neither in the labels nor in the predictions does not enter means, as in scikit-learn. `mcc`:
    Matthews' correlation (Gorodkin 2004). `auroc`: each class against the rest, mean over the classes that have both;
    off by at most half the share of pairs that fall into one bin; 0.5 where there are no pairs. `ece`: expected
    calibration error. `log_loss`: nats. Raises `ValueError` when there were no rows.
    """
    classes = next(count for count in itertools.count(1) if classification_width(count) == len(sums))
    loss, rows = sums[-2:].tolist()
    if not rows:
        raise ValueError("there are no rows to score")
    binned = classes * classes + 2 * CALIBRATION_BINS
    confusion = sums[: classes * classes].reshape(classes, classes)
    calibration, ranks = sums[classes * classes : binned], sums[binned:-2]
    hits, real, found = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    f1 = _shares(2 * hits, real + found)
    seen = real + found > 0
    one = torch.arange(classes) == 1 if classes == 2 else seen
    accuracy = float(hits.sum() / rows)
    return {
        "accuracy": accuracy,
        "precision": float(_shares(hits, found)[one].mean()),
        "recall": float(_shares(hits, real)[one].mean()),
        "f1": float(f1[one].mean()),
        "macro_f1": float(f1[seen].mean()),
        "micro_f1": accuracy,
        "mcc": _mcc(hits.sum(), real, found),
        "auroc": _auroc(ranks.reshape(2, _ranked(classes), -1)),
        "ece": _ece(calibration.reshape(2, -1), rows),
        "log_loss": loss / rows,
    }


def _shares(part: Tensor, whole: Tensor) -> Tensor:
    """Part by whole; 0 where the whole is."""
    return part / whole.clamp(min=1.0)


def _mcc(hits: Tensor, real: Tensor, found: Tensor) -> float:
    rows = real.sum()
    spread = (rows**2 - (found**2).sum()) * (rows**2 - (real**2).sum())
    return float((hits * rows - (real * found).sum()) / spread.sqrt()) if spread > 0 else 0.0


def _auroc(ranks: Tensor) -> float:
    """`ranks` (2, K, B): of each class, rows of others and its own in bins of rising log-odds."""
    others, own = ranks
    below = others.cumsum(dim=1) - others
    won = (own * (below + others / 2)).sum(dim=1)
    pairs = others.sum(dim=1) * own.sum(dim=1)
    there = pairs > 0
    return float((won[there] / pairs[there]).mean()) if bool(there.any()) else 0.5


def _ece(calibration: Tensor, rows: float) -> float:
    right, confidence = calibration
    return float((right - confidence).abs().sum() / rows)
