"""Parts that measurements are held out in: what a prediction may not have been fitted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bench.accuracy.published import Deployment
from bench.accuracy.samples import Sample
from bench.accuracy.settings import CLUSTERS

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


def deployments_held_out(
    kind: str, number: int, sample: Sample, deployments: Sequence[Deployment], parts: int, seed: int
) -> frozenset[str]:
    """Ids of the published deployments that are held out with a part of the samples.

    Of random parts as many of the deployments, all rows of one together; else those of the model or GPU held out.

    Args:
        number: Of the part. sample: One of it.
    """
    gpu = CLUSTERS.get(sample.row.gpu, sample.row.gpu)
    names = sorted({each.name for each in deployments})
    order = np.random.default_rng(seed).permutation(len(names))
    drawn = {names[i] for i in order[number::parts]}
    out: dict[str, Callable[[Deployment], bool]] = {
        MEASUREMENT: lambda each: each.name in drawn,
        GROUP: lambda each: (each.model, each.cluster) == (sample.model, gpu),
        MODEL: lambda each: each.model == sample.model,
        GPU: lambda each: each.cluster == gpu,
    }
    return frozenset(each.id for each in deployments if out[kind](each))
