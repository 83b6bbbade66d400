"""Made-up readings for tests of profiling: a head that knows, among heads that guess."""

from __future__ import annotations

import numpy as np

from icr_rag.model.reading import READINGS
from icr_rag.profiling.samples import Sample


def planted(
    count=30, documents=8, layers=5, heads=3, at=(2, 1), noise=0.3, seed=0, group="a", scale=1.0
):
    """Samples in which head ``at`` follows the grades and the others are random."""
    generator = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        readings = generator.normal(size=(documents, layers, heads, len(READINGS)))
        grades = np.zeros(documents, dtype=np.int64)
        grades[generator.integers(documents)] = 1
        signal = scale * grades[:, None] * 2 + noise * generator.normal(size=(documents, 1))
        readings[:, at[0], at[1]] = signal
        samples.append(
            Sample(
                f"{group}{number}",
                group,
                readings.astype(np.float32),
                grades,
                np.array([1], dtype=np.int64),
            )
        )
    return samples
