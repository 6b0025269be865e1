"""Fits P(an answer is right) from the logprobs of its tokens, by logistic regression.

Features are computed from what the server returns as logprobs.content, end token included.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Tried in this order; a later one must be better by a clear margin to be taken.
CANDIDATES = (("sum",), ("sum", "min"), ("sum", "min", "tokens"), ("sum", "mean", "min", "tokens"))
MARGIN = 0.002
FOLDS = 5
RIDGE = 1e-3
BINS = 10


@dataclass(frozen=True)
class Scorer:
    """p = sigmoid(intercept + sum of weight x feature)."""

    features: dict[str, float]
    intercept: float

    def __call__(self, logprobs: Sequence[np.ndarray]) -> np.ndarray:
        x = table(logprobs, tuple(self.features))
        score = x @ np.array(list(self.features.values())) + self.intercept
        return 1 / (1 + np.exp(-score))


def table(logprobs: Sequence[np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    """Return one row of features an answer."""
    made = {
        "sum": [float(row.sum()) for row in logprobs],
        "mean": [float(row.mean()) for row in logprobs],
        "min": [float(row.min()) for row in logprobs],
        "tokens": [float(len(row)) for row in logprobs],
    }
    return np.stack([np.array(made[name]) for name in names], axis=1)


def fit(logprobs: Sequence[np.ndarray], right: np.ndarray) -> tuple[Scorer, np.ndarray]:
    """Return the scorer and, for each answer, a probability from folds it took no part in."""
    best: tuple[float, tuple[str, ...], np.ndarray] | None = None
    for names in CANDIDATES:
        outside = _outside(table(logprobs, names), right)
        loss = _log_loss(outside, right)
        print(f"calibration by {', '.join(names)}: log loss {loss:.4f}")
        if best is None or loss < best[0] - MARGIN:
            best = (loss, names, outside)
    assert best is not None
    _, names, outside = best
    slope, intercept = _newton(table(logprobs, names), right)
    found = {name: float(weight) for name, weight in zip(names, slope, strict=True)}
    return Scorer(found, intercept), outside


def auroc(score: np.ndarray, right: np.ndarray) -> float:
    """Return the share of (right, wrong) pairs in which the right answer scores higher."""
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    yes, no = int(right.sum()), int((~right).sum())
    return float((rank[right].sum() - yes * (yes + 1) / 2) / (yes * no))


def ece(probability: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error over ten bins of equal width (Guo et al., 2017)."""
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    gaps = [
        abs(probability[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean()
        for b in range(BINS)
        if (bins == b).any()
    ]
    return float(sum(gaps))


def threshold(
    probability: np.ndarray, small: np.ndarray, large: np.ndarray, allowed_loss: float
) -> float:
    """Return the lowest threshold from which on no higher one loses more than allowed.

    The loss is paired: accuracy of always-large minus accuracy of the cascade.
    """
    order = np.argsort(-probability)
    lost = np.cumsum(large[order].astype(int) - small[order].astype(int)) / len(order)
    kept = int(np.argmax(lost > allowed_loss)) if (lost > allowed_loss).any() else len(order)
    return float(probability[order[max(kept - 1, 0)]])


def _outside(x: np.ndarray, right: np.ndarray) -> np.ndarray:
    fold = np.random.default_rng(0).permutation(len(right)) % FOLDS
    found = np.zeros(len(right))
    for number in range(FOLDS):
        slope, intercept = _newton(x[fold != number], right[fold != number])
        found[fold == number] = 1 / (1 + np.exp(-(x[fold == number] @ slope + intercept)))
    return found


def _newton(x: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit by Newton's method on standardised features; return slope and intercept for raw ones."""
    mean, spread = x.mean(0), x.std(0)
    design = np.concatenate([(x - mean) / spread, np.ones((len(x), 1))], 1)
    beta = np.zeros(design.shape[1])
    for _ in range(25):
        p = 1 / (1 + np.exp(-(design @ beta)))
        slope = design.T @ (right - p) - RIDGE * beta
        curve = (design * (p * (1 - p))[:, None]).T @ design + RIDGE * np.eye(len(beta))
        beta = beta + np.linalg.solve(curve, slope)
    raw = beta[:-1] / spread
    return raw, float(beta[-1] - raw @ mean)


def _log_loss(probability: np.ndarray, right: np.ndarray) -> float:
    sure = np.clip(np.where(right, probability, 1 - probability), 1e-9, 1)
    return float(-np.log(sure).mean())
