"""The price of a placement by literal enumeration, in pure Python: no arrays, and no code of placement.cost.

Every home GPU, every token set and every draw of copies is listed with its chance; messages are counted one by one
on the links that they cross. The words are those of docs/cost-model.md ("One MoE layer").
"""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import product

from placement.problem.layer import LayerProblem


def copies_of(problem: LayerProblem, slots: list[int], expert: int) -> list[int]:
    """GPUs that hold a copy of `expert`."""
    return [s // problem.hardware.slots_per_gpu for s, e in enumerate(slots) if e == expert]


def candidates(problem: LayerProblem, slots: list[int], home: int, expert: int) -> list[int]:
    """GPUs of which one, with equal chances, serves `expert` for the tokens of GPU `home`."""
    held = copies_of(problem, slots, expert)
    if problem.rules.dispatch == "even":
        return held
    if problem.rules.dispatch != "nearest":
        raise ValueError(f"no reference for {problem.rules.dispatch} dispatch")
    if home in held:
        return [home]
    m = problem.topology.gpus_per_node
    return [g for g in held if g // m == home // m] or held


def slot_seconds(problem: LayerProblem, tokens: float) -> float:
    """Seconds of one slot with `tokens` expected tokens."""
    rates = problem.hardware.rates
    return max((1 - math.exp(-tokens)) * rates.weight_s, tokens * rates.token_s)


def home_shares(problem: LayerProblem) -> list[float]:
    """Share of the tokens of each home GPU."""
    if problem.hardware.home is not None:
        return problem.hardware.home.tolist()
    room = [1] * problem.topology.gpus if problem.hardware.capacity is None else problem.hardware.capacity.tolist()
    return [(r > 0) / sum(r > 0 for r in room) for r in room]


def gpu_speeds(problem: LayerProblem) -> list[float]:
    """Rate of work of each GPU; of their mean over GPUs with capacity for objective "load"."""
    gpus = problem.topology.gpus
    speeds = [1.0] * gpus if problem.hardware.speed is None else problem.hardware.speed.tolist()
    room = [1] * gpus if problem.hardware.capacity is None else problem.hardware.capacity.tolist()
    usable = [s for s, r in zip(speeds, room, strict=True) if r]
    return [s * len(usable) / sum(usable) for s in speeds] if problem.objective.kind == "load" else speeds


def worst_mean(values: list[float], weights: list[float], tail: float) -> float:
    """Least eta + E[max(0, value - eta)] / tail over all eta: Rockafellar and Uryasev's form of the tail mean."""
    if tail == 0:
        return max(values)
    excess = [sum(w * max(0.0, v - eta) for v, w in zip(values, weights, strict=True)) for eta in values]
    return min(eta + over / tail for eta, over in zip(values, excess, strict=True))


def gpu_loads(problem: LayerProblem, slots: list[int], window: int) -> tuple[list[float], list[float]]:
    """([gpus] expected copies of a token per GPU, [gpus] seconds of its slots)."""
    gpus = problem.topology.gpus
    served: dict[tuple[int, int], float] = defaultdict(float)
    for home, share in enumerate(home_shares(problem)):
        for expert in range(problem.experts):
            held = candidates(problem, slots, home, expert)
            for g in held:
                served[g, expert] += float(problem.data.load[window, expert]) / len(held) * share
    loads, seconds = [0.0] * gpus, [0.0] * gpus
    for (g, _), load in served.items():
        loads[g] += load
        seconds[g] += slot_seconds(problem, problem.hardware.rates.tokens_per_gpu * gpus * load)
    return loads, seconds


def entries(problem: LayerProblem, home: int, node: int) -> list[int]:
    """GPUs of another node of which one, with equal chances, a token of GPU `home` enters at."""
    m, alive = problem.topology.gpus_per_node, alive_gpus(problem)
    same = node * m + home % m
    return [same] if same in alive else [g for g in alive if g // m == node]


def alive_gpus(problem: LayerProblem) -> list[int]:
    return [g for g, room in enumerate(problem.hardware.capacities.tolist()) if room > 0]


def token_messages(problem: LayerProblem, home: int, reached: tuple[int, ...]) -> list[tuple[int, int, float]]:
    """(source GPU, destination GPU, chance) of each message of one token whose copies are served on `reached`."""
    if problem.rules.message == "dense":
        # All GPUs that have not failed get every token, over one GPU of each other node.
        return _over_nodes(problem, home, tuple(alive_gpus(problem)))
    if problem.data.sets is None or problem.rules.message == "per_expert":
        return [(home, g, 1.0) for g in reached]
    if problem.rules.message == "per_rank":
        return [(home, g, 1.0) for g in set(reached)]
    return _over_nodes(problem, home, reached)


def _over_nodes(problem: LayerProblem, home: int, reached: tuple[int, ...]) -> list[tuple[int, int, float]]:
    """Messages to GPUs where a token crosses to each node once."""
    m, out = problem.topology.gpus_per_node, []
    for node in {g // m for g in reached}:
        # Over the slow link once, to the GPU of the same local rank, which passes it on; around failed GPUs.
        doors = [home] if node == home // m else entries(problem, home, node)
        for enters in doors:
            out += [(home, enters, 1.0 / len(doors))] * (enters != home)
            out += [(enters, g, 1.0 / len(doors)) for g in set(reached) if g // m == node]
    return out


def messages(problem: LayerProblem, slots: list[int], window: int) -> dict[tuple[int, int], float]:
    """Expected messages from GPU to GPU in one dispatch; none from a GPU to itself."""
    out: dict[tuple[int, int], float] = defaultdict(float)
    if problem.rules.message == "dense":
        tokens = [((), 1.0)]
    elif problem.data.sets is None:
        tokens = [((e,), float(problem.data.load[window, e])) for e in range(problem.experts)]
    else:
        rows = zip(problem.data.sets.ids.tolist(), problem.data.sets.weight[window].tolist(), strict=True)
        tokens = [(tuple(ids), weight) for ids, weight in rows]
    for home, share in enumerate(home_shares(problem)):
        for ids, weight in tokens:
            draws = [candidates(problem, slots, home, e) for e in ids]
            chance = (
                problem.hardware.rates.tokens_per_gpu
                * problem.topology.gpus
                * share
                * weight
                / math.prod(len(d) for d in draws)
            )
            for reached in product(*draws):
                for source, destination, part in token_messages(problem, home, reached):
                    if source != destination:
                        out[source, destination] += chance * part
    return out


def link_seconds_per_byte(problem: LayerProblem, crossing: dict[tuple[int, int], float]) -> float:
    """The busiest fast link or NIC group, one direction at a time."""
    topology, rates = problem.topology, problem.hardware.rates
    m, tray = topology.gpus_per_node, topology.gpus_per_tray
    used: dict[tuple[str, str, int], float] = defaultdict(float)
    for (source, destination), count in crossing.items():
        if source // m == destination // m:
            used["fast", "out", source] += count / rates.fast_bytes_per_s
            used["fast", "in", destination] += count / rates.fast_bytes_per_s
        else:
            used["slow", "out", source // tray] += count / (tray * rates.slow_bytes_per_s)
            used["slow", "in", destination // tray] += count / (tray * rates.slow_bytes_per_s)
    return max(used.values(), default=0.0)


def reference_objective(problem: LayerProblem, slots: list[int]) -> float:
    """The problem's objective for a placement of one copy per expert and GPU."""
    topology, rates = problem.topology, problem.hardware.rates
    latency = rates.fast_latency_s if topology.gpus_per_node > 1 else 0.0
    latency += rates.slow_latency_s if topology.nodes > 1 else 0.0
    speeds, room = gpu_speeds(problem), problem.hardware.capacities.tolist()
    values = []
    for window in range(problem.windows):
        loads, seconds = gpu_loads(problem, slots, window)
        if problem.objective.kind == "load":
            largest = max(load / speed for load, speed in zip(loads, speeds, strict=True))
            values.append(largest * sum(r > 0 for r in room) / sum(loads))
            continue
        crossing = messages(problem, slots, window)
        if problem.objective.kind == "traffic":
            m, both = topology.gpus_per_node, rates.dispatch_bytes + rates.combine_bytes
            across = sum(count for (source, to), count in crossing.items() if source // m != to // m)
            values.append(across * both / (rates.tokens_per_gpu * topology.gpus))
            continue
        link = link_seconds_per_byte(problem, crossing)
        moved = 2 * latency + (rates.dispatch_bytes + rates.combine_bytes) * link
        work = max(second / speed for second, speed in zip(seconds, speeds, strict=True))
        values.append(max(moved, work) if rates.overlap == "two_batch" else moved + work)
    return worst_mean(values, problem.data.window_weight.tolist(), problem.objective.tail)
