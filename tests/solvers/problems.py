"""Layer problems for tests of solvers: random but seeded, small or of a real shape."""

from dataclasses import replace

import numpy as np

from placement.problem.arrays import EMPTY
from placement.problem.data import TokenSets
from placement.problem.layer import LayerProblem
from placement.problem.rates import LayerRates, PassKind
from placement.problem.topology import Topology
from tests.layers import changed, layer_problem

RATES = LayerRates(
    tokens_per_gpu=512.0, weight_s=6e-6, token_s=3e-8, dispatch_bytes=4096.0, combine_bytes=4096.0,
    fast_bytes_per_s=400e9, slow_bytes_per_s=45e9, fast_latency_s=3e-6, slow_latency_s=8e-6,
)  # fmt: skip


def mixed(rates: LayerRates) -> LayerRates:
    """Passes of two kinds: of ten, nine with a two-thousandth of the tokens of the tenth."""
    mean = 0.9 * 0.0005 + 0.1
    kinds = (PassKind(0.9, 0.0005 / mean), PassKind(0.1, 1.0 / mean))
    return replace(rates, kinds=kinds)


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
    return layer_problem(**(arguments | changes))  # type: ignore[arg-type]


def real_shape_loads(seed: int, layers: int, experts: int, top_k: int, sigma: float = 0.8) -> np.ndarray:
    """[layers, experts] log-normal loads that sum to top_k in each layer."""
    loads = np.exp(np.random.default_rng(seed).normal(0, sigma, (layers, experts)))
    return loads / loads.sum(axis=1, keepdims=True) * top_k


def running_problem(seed: int, **arguments: object) -> LayerProblem:
    """A layer of a running system: GPUs of unlike capacity (one of them may have failed), speed and share of tokens.

    Arguments are those of `random_problem`; those of the fields named here win.
    """
    plain = random_problem(seed, **(arguments | {"capacity": None, "speed": None, "home": None, "tail": 1.0}))  # type: ignore[arg-type]
    rng = np.random.default_rng([seed, 1])
    gpus, spare = plain.topology.gpus, plain.slots - plain.experts
    capacity = np.full(gpus, plain.hardware.slots_per_gpu)
    if seed % 3 == 0 and spare >= plain.hardware.slots_per_gpu:
        capacity[rng.integers(gpus)] = 0
    while capacity.sum() > plain.experts and rng.random() < 0.6:
        capacity[rng.choice(np.flatnonzero(capacity))] -= 1
    if "capacity" in arguments:
        given = arguments["capacity"]
        capacity = np.full(gpus, plain.hardware.slots_per_gpu) if given is None else np.asarray(given)
    home = rng.dirichlet(np.ones(gpus)) * (capacity > 0)
    fields: dict[str, object] = {
        "capacity": capacity,
        "speed": rng.choice([0.5, 1.0, 1.5], gpus) if seed % 2 else None,
        "home": home / home.sum() if seed % 4 < 2 else None,
        "tail": float(rng.choice([0.0, 0.3, 0.5, 1.0])),
    }
    return changed(plain, **(fields | {name: arguments[name] for name in fields if name in arguments}))  # type: ignore[arg-type]


def random_placement(problem: LayerProblem, seed: int) -> np.ndarray:
    """[slots] a valid placement: experts in random order, wrapped over the usable slots."""
    order = np.random.default_rng([seed, 2]).permutation(problem.experts)
    slots = np.full(problem.slots, EMPTY)
    slots[problem.hardware.usable] = order[np.arange(problem.hardware.usable_slots) % problem.experts]
    return slots
