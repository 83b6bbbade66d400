"""Is one system better than another? Paired tests over the same queries.

M. D. Smucker, J. Allan, B. Carterette: A Comparison of Statistical Significance Tests for
Information Retrieval Evaluation (CIKM 2007). It finds that the randomization test and the shifted
bootstrap agree with each other, and recommends these over the sign and Wilcoxon tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from icr_rag.errors import ConfigError, InputError

#: Values in one block of drawn samples: 16 MB of float64.
_BLOCK = 2_000_000

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Significance:
    """The difference between two systems.

    Attributes:
        mean_difference: mean over the queries of the first system's value minus the second's;
            above 0, the first is better.
        p_value: two-sided: how probable a mean at least as far from 0 would be if the systems
            did not differ.
        low, high: 95 % interval of the mean difference, by percentile bootstrap over the queries,
            whatever the method of the test.
        queries: how many there are.
        exact: True if the p-value is over all sign patterns, False if over drawn samples.
    """

    mean_difference: float
    p_value: float
    low: float
    high: float
    queries: int = 0
    exact: bool = False


def paired_test(
    a: Mapping[str, float] | Sequence[float],
    b: Mapping[str, float] | Sequence[float],
    method: Literal["randomization", "bootstrap"] = "randomization",
    samples: int = 10_000,
    seed: int = 0,
) -> Significance:
    """Test whether the mean difference over the queries could be chance.

    Args:
        a: the first system's value for each query: a mapping from query ids, or a sequence.
        b: the second system's, for the same queries: in any order if mappings, in the same order
            if sequences.
        method: "randomization" swaps the systems' values at random query by query (section 3.3 of
            the paper); "bootstrap" draws queries with replacement from the differences, shifted
            so that their mean is 0 (section 3.4).
        samples: how many times. The randomization goes through all 2^n patterns instead if these
            are no more; n counts the queries whose values differ.
        seed: of the samples. The order of the queries does not change the result if they are
            given as mappings.

    Raises:
        ConfigError: for an unknown method, or fewer than 1 sample.
        InputError: if the queries differ, there are none, or a value is not finite.
    """
    if method not in ("randomization", "bootstrap"):
        raise ConfigError(f"method={method!r}; allowed are 'randomization' and 'bootstrap'")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ConfigError(f"samples={samples!r} is not allowed; it must be a whole number from 1")
    differences = _differences(a, b)
    mean = float(differences.mean())
    # Two streams, so that the interval does not depend on the method.
    draws, interval_draws = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    low, high = np.percentile(_bootstrap_means(differences, samples, interval_draws), [2.5, 97.5])

    exact = False
    if method == "bootstrap":
        means = _bootstrap_means(differences - mean, samples, draws)
    else:
        # A query without a difference gives the same mean whichever way it is swapped.
        changed = differences[differences != 0]
        exact = len(changed) < 63 and 2 ** len(changed) <= samples
        sums = _all_sums(changed) if exact else _random_sums(changed, samples, draws)
        means = sums / len(differences)
    # Sums of the same numbers in another order differ in the last digits.
    tolerance = 1e-12 * float(np.abs(differences).mean())
    extreme = int(np.count_nonzero(np.abs(means) >= abs(mean) - tolerance))
    # The pattern that was observed is among all of them, but need not be among those drawn.
    p_value = extreme / len(means) if exact else (extreme + 1) / (len(means) + 1)
    return Significance(mean, p_value, float(low), float(high), len(differences), exact)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several comparisons, corrected by Holm's step-down method (1979).

    The k-th smallest of n is multiplied by n - k + 1, never below a smaller one's and at most 1.
    Comparing each with a level keeps the probability of any false claim below that level,
    whether or not the comparisons depend on each other.

    Raises:
        InputError: for a value outside 0 to 1.
    """
    values = np.asarray(p_values, np.float64)
    # NaN, too, is not within.
    if not np.all((values >= 0) & (values <= 1)):
        raise InputError(f"p-values {list(p_values)}: each must be from 0 to 1")
    order = np.argsort(values, kind="stable")
    scaled = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in corrected]


def _differences(
    a: Mapping[str, float] | Sequence[float], b: Mapping[str, float] | Sequence[float]
) -> _Floats:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            alone = sorted(a.keys() ^ b.keys())
            raise InputError(
                f"the systems have values for different queries: {len(alone)} stand on one side "
                f"only, {alone[0]!r} first; evaluate both on the same queries"
            )
        queries = sorted(a)
        first, second = [a[query] for query in queries], [b[query] for query in queries]
    elif isinstance(a, Mapping) or isinstance(b, Mapping):
        raise InputError(
            "one system's values are a mapping and the other's are not; give two alike"
        )
    else:
        first, second = list(a), list(b)
        if len(first) != len(second):
            raise InputError(
                f"{len(first)} values against {len(second)}; they must be of the same queries"
            )
    if not first:
        raise InputError("there are no queries to compare")
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    if not np.isfinite(differences).all():
        raise InputError("a value is not finite; every query needs a number from each system")
    return differences


def _bootstrap_means(values: _Floats, samples: int, draws: np.random.Generator) -> _Floats:
    """Means of ``samples`` draws of as many values, with replacement."""
    means = [
        values[draws.integers(len(values), size=(rows, len(values)))].mean(axis=1)
        for rows in _blocks(samples, len(values))
    ]
    return np.concatenate(means)


def _random_sums(values: _Floats, samples: int, draws: np.random.Generator) -> _Floats:
    """Sums of the values with random signs."""
    sums = [
        draws.choice(np.array([-1.0, 1.0]), size=(rows, len(values))) @ values
        for rows in _blocks(samples, len(values))
    ]
    return np.concatenate(sums)


def _all_sums(values: _Floats) -> _Floats:
    """The 2^n sums of the values with every pattern of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def _blocks(samples: int, width: int) -> list[int]:
    """Numbers of samples that fit into a block each; together ``samples``."""
    rows = max(1, _BLOCK // max(1, width))
    return [min(rows, samples - start) for start in range(0, samples, rows)]
