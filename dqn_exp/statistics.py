"""Statistics over seeds: the interquartile mean and its bootstrap interval.

Agarwal et al. 2021, https://arxiv.org/abs/2108.13264. Letters: S seeds.
"""

import numpy as np
from scipy import stats


def interquartile_mean(scores: np.ndarray, axis: int = 0) -> np.ndarray:
    """Mean of the middle half of scores [S]."""
    return stats.trim_mean(scores, 0.25, axis=axis)


def confidence_interval(scores: np.ndarray) -> tuple[float, float] | None:
    """95 % percentile-bootstrap interval of the IQM of scores [S]; None for fewer than two."""
    if len(scores) < 2:
        return None
    low, high = band(scores, n_resamples=10_000)
    return float(low), float(high)


def band(scores: np.ndarray, n_resamples: int = 2000) -> np.ndarray:
    """The same interval at each of T points of curves [S, T]: its lower and upper ends [2, T]."""
    interval = stats.bootstrap(
        (scores,),
        interquartile_mean,
        axis=0,
        vectorized=True,
        batch=max(1, (1 << 24) // scores.size),  # 128 MB
        n_resamples=n_resamples,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return np.stack([interval.low, interval.high])
