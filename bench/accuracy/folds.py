"""Parts that measurements are held out in: what a prediction may not have been fitted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bench.accuracy.samples import Sample

#: Samples of each part, by their numbers.
Folds = tuple[tuple[int, ...], ...]

MEASUREMENT, GROUP, MODEL, GPU = "measurement", "model and GPU", "model", "GPU type"
KINDS = (MEASUREMENT, GROUP, MODEL, GPU)


def folds_of(kind: str, samples: Sequence[Sample], parts: int, seed: int) -> Folds:
    """The samples in parts: `parts` random ones, or one for each model and GPU, model, or GPU type.

    A sample is a whole measurement, so no restatement of one that is held out is fitted to.
    """
    if kind == MEASUREMENT:
        order = np.random.default_rng(seed).permutation(len(samples))
        found = (tuple(sorted(order[i::parts].tolist())) for i in range(parts))
        return tuple(part for part in found if part)
    key: Callable[[Sample], str] = {
        GROUP: lambda sample: sample.group,
        MODEL: lambda sample: sample.model,
        GPU: lambda sample: sample.row.gpu,
    }[kind]
    values = [key(sample) for sample in samples]
    return tuple(tuple(i for i, value in enumerate(values) if value == part) for part in sorted(set(values)))
