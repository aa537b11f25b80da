"""Random master problems, and the brute force that judges their answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from placement.cost.step.roles import InstancePoint, Role
from placement.problem.split import Split
from solvers.deploy.problem import Column, MasterProblem, Pool

ROLES: tuple[Role, ...] = ("aggregated", "prefill", "decode")


def column(pool: int, role: Role, gpus: int, rate: float) -> Column:
    """A column of `gpus` GPUs that serves `rate` requests/s."""
    split = Split(tp=1, ep=1, pp=1, dp=gpus, batch=1, instances=1, redundant=0, slots_per_gpu=1, etp=gpus)
    return Column(pool, role, split, InstancePoint(rate, 1.0, 0.01))


def random_problem(seed: int) -> MasterProblem:
    """One or two pools of up to three nodes of up to five GPUs, with up to five columns of any role."""
    rng = np.random.default_rng(seed)
    pools = tuple(
        Pool(f"p{i}", int(rng.integers(1, 4)), int(rng.integers(2, 6)), float(rng.uniform(0.5, 4.0)))
        for i in range(int(rng.integers(1, 3)))
    )
    columns = []
    for _ in range(int(rng.integers(1, 6))):
        index = int(rng.integers(len(pools)))
        gpus = int(rng.integers(1, pools[index].gpus + 1))
        role = ROLES[int(rng.integers(3))]
        columns.append(column(index, role, gpus, float(gpus ** rng.uniform(0.7, 1.3) * rng.uniform(0.5, 2.0))))
    kv = float(rng.uniform(0.2, 2.0)) if rng.random() < 0.5 else 0.0
    return MasterProblem(pools, tuple(columns), kv)


def all_counts(problem: MasterProblem) -> Iterator[tuple[int, ...]]:
    """Every vector of counts that fits the nodes, of no more kinds than the problem allows."""

    def extend(prefix: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(prefix) == len(problem.columns):
            yield prefix
            return
        for count in range(problem.pools[problem.columns[len(prefix)].pool].gpus + 1):
            counts = (*prefix, count)
            padded = counts + (0,) * (len(problem.columns) - len(counts))
            if not packs(problem, padded) or not few_kinds(problem, padded):
                break
            yield from extend(counts)

    yield from extend(())


def few_kinds(problem: MasterProblem, counts: Sequence[int]) -> bool:
    """Whether a deployment has no more kinds of instances than the problem allows, in all and of each role."""
    kinds = Counter(c.role for c, n in zip(problem.columns, counts, strict=True) if n)
    most = problem.max_kinds
    return most is None or (kinds.total() <= most and all(n <= max(1, most - 1) for n in kinds.values()))


def best_rate(problem: MasterProblem) -> float:
    """The most requests/s of any deployment."""
    return max(problem.requests_per_s(counts) for counts in all_counts(problem))


def fewest_gpus(problem: MasterProblem, target: float) -> int | None:
    """The fewest GPUs of a deployment that reaches a rate."""
    found = [problem.gpus(counts) for counts in all_counts(problem) if problem.requests_per_s(counts) >= target]
    return min(found, default=None)


def wanting(problem: MasterProblem, target: float) -> MasterProblem:
    """The problem of reaching a rate with the fewest GPUs."""
    return replace(problem, goal="gpus", target=target)


def packs(problem: MasterProblem, counts: Sequence[int]) -> bool:
    """Whether the instances fit the nodes of every pool; exact, by searching over nodes (small pools)."""
    for index, pool in enumerate(problem.pools):
        mine = [(c, n) for c, n in zip(problem.columns, counts, strict=True) if c.pool == index and n > 0]
        nodes = pool.nodes - sum(problem.whole(c) * n for c, n in mine)
        pieces: Counter[int] = Counter()
        for column, count in mine:
            if problem.piece(column):
                pieces[problem.piece(column)] += count
        if nodes < 0 or not _fit(tuple(sorted(pieces.items(), reverse=True)), nodes, pool.gpus_per_node):
            return False
    return True


def _fit(pieces: tuple[tuple[int, int], ...], nodes: int, room: int) -> bool:
    """Whether pieces (size, how many) fit into `nodes` bins of `room`: fills one bin after the other, in every way."""
    total = sum(size * count for size, count in pieces)
    if total == 0:
        return True
    if nodes == 0 or total > nodes * room:
        return False
    if nodes * math.floor(room / pieces[0][0]) < pieces[0][1]:
        return False
    sizes = [size for size, _ in pieces]
    tried: set[tuple[int, ...]] = set()
    for pattern in patterns(sizes, room):
        taken = tuple(min(have, count) for have, (_, count) in zip(pattern, pieces, strict=True))
        # The largest piece goes into this bin without loss of generality.
        if taken[0] == 0 or taken in tried:
            continue
        tried.add(taken)
        rest = tuple((size, count - used) for (size, count), used in zip(pieces, taken, strict=True) if count > used)
        if _fit(rest, nodes - 1, room):
            return True
    return False


def patterns(sizes: Sequence[int], room: int) -> tuple[tuple[int, ...], ...]:
    """Every maximal way to fill a node of `room` GPUs with pieces of the given sizes: how many of each.

    Args:
        sizes: distinct, positive, at most `room`.
    """
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    found: list[tuple[int, ...]] = []
    smallest = min(sizes, default=room + 1)

    def fill(at: int, left: int, counts: list[int]) -> None:
        if at == len(order):
            if left < smallest:
                found.append(tuple(counts))
            return
        size = sizes[order[at]]
        last = at == len(order) - 1
        most = left // size
        for count in range(most, most - 1 if last else -1, -1):
            counts[order[at]] = count
            fill(at + 1, left - count * size, counts)
        counts[order[at]] = 0

    if sizes:
        fill(0, room, [0] * len(sizes))
    return tuple(found)
