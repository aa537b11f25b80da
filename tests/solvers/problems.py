"""Layer problems for tests of solvers: random but seeded, small or of a real shape."""

import numpy as np

from placement.problem import LayerProblem, LayerRates, TokenSets, Topology

RATES = LayerRates(
    tokens_per_gpu=512.0, weight_s=6e-6, token_s=3e-8, dispatch_bytes=4096.0, combine_bytes=4096.0,
    fast_bytes_per_s=400e9, slow_bytes_per_s=45e9, fast_latency_s=3e-6, slow_latency_s=8e-6,
)  # fmt: skip


def random_problem(
    seed: int,
    experts: int = 32,
    gpus: int = 8,
    gpus_per_node: int = 2,
    slots_per_gpu: int = 4,
    k: int = 4,
    tokens: int = 600,
    windows: int = 1,
    with_sets: bool = True,
    **changes: object,
) -> LayerProblem:
    """Tokens that draw their experts from one of a few topics, so that experts fire together."""
    rng = np.random.default_rng(seed)
    topics = rng.dirichlet(np.full(experts, 0.3), size=6) + 1e-3
    heat = np.exp(rng.normal(0, 0.7, experts))
    ids = np.empty((windows, tokens, k), dtype=np.int64)
    for w in range(windows):
        share = topics[rng.integers(0, 6, tokens)] * heat
        noisy = np.log(share) + rng.gumbel(size=share.shape)
        ids[w] = np.sort(np.argsort(-noisy, axis=1)[:, :k], axis=1)
    load = np.stack([np.bincount(ids[w].ravel(), minlength=experts) / tokens for w in range(windows)])
    distinct, inverse = np.unique(ids.reshape(-1, k), axis=0, return_inverse=True)
    weight = np.zeros((windows, len(distinct)))
    np.add.at(weight, (np.repeat(np.arange(windows), tokens), inverse.ravel()), 1.0 / tokens)
    arguments: dict[str, object] = {
        "load": load,
        "topology": Topology(gpus, gpus_per_node),
        "slots_per_gpu": slots_per_gpu,
        "rates": RATES,
        "sets": TokenSets(distinct, weight) if with_sets else None,
        "window_weight": np.full(windows, 1.0 / windows),
    }
    return LayerProblem(**(arguments | changes))  # type: ignore[arg-type]


def real_shape_loads(seed: int, layers: int, experts: int, top_k: int, sigma: float = 0.8) -> np.ndarray:
    """[layers, experts] log-normal loads that sum to top_k in each layer."""
    loads = np.exp(np.random.default_rng(seed).normal(0, sigma, (layers, experts)))
    return loads / loads.sum(axis=1, keepdims=True) * top_k
