"""One rule and share of extra slots: solved placements and the balancer's, as predicted and as the engine serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.alltoall.concrete import concrete_messages, matrix_loads
from bench.dispatch_rules.engine_code import sglang_copies, vllm_slots
from bench.placement_quality.measure import RIVAL, SOLVED
from bench.placement_quality.protocol import Case, Recorded, Setting, judged, problems
from placement.cost.layer.dispatch.sglang_draw import drawn_copies
from placement.cost.layer.score import score_layer
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.experts.layers import plan_layers
from solvers.stop import Stop
from specs.engine import Dispatch, MessageRule

#: Deviation of the logarithm of what redrawn loads change by: less than what any sample of tokens tells.
CHANGE = 0.01


@dataclass(frozen=True)
class Rule:
    """An engine's rule: `engine` says whose functions pick copies."""

    name: str
    engine: str
    dispatch: Dispatch
    message: MessageRule


RULES = (
    Rule("SGLang static", "sglang", "sglang_static", "per_node"),
    Rule("vLLM hash", "vllm", "token_hash", "per_node"),
    Rule("vLLM dense", "vllm", "token_hash", "dense"),
)


@dataclass(frozen=True)
class Served:
    """Microseconds of a layer in prefill, and balancedness, as predicted and as served: means over layers.

    Attributes:
        each_us: [layers] `served_us` of each.
    """

    predicted_us: float
    served_us: float
    predicted_balancedness: float
    served_balancedness: float
    each_us: tuple[float, ...]

    @property
    def off(self) -> float:
        """What the prediction is off by, relatively."""
        return self.served_us / self.predicted_us - 1


@dataclass(frozen=True)
class Redrawn:
    """Balancedness of one side where the loads solved on are changed by chance: one placement may be lucky.

    Attributes:
        mean: of the draws, as predicted. error: standard error of the mean.
    """

    mean: float
    error: float


@dataclass(frozen=True)
class Measured:
    """One case. `rule`, `extra`, `protocol`, `domain` say which.

    Attributes:
        redrawn: The solved and the rival side over draws of the loads solved on; None: not asked for.
    """

    rule: str
    extra: float
    protocol: str
    domain: str
    solved: Served
    rival: Served
    redrawn: tuple[Redrawn, Redrawn] | None

    @property
    def speedup(self) -> float:
        """Layer time of the balancer over the solved one's, both as the engine serves them."""
        return self.rival.served_us / self.solved.served_us

    @property
    def layer_speedups(self) -> tuple[float, float]:
        """(Least, most) of a layer."""
        each = [its / mine for its, mine in zip(self.rival.each_us, self.solved.each_us, strict=True)]
        return min(each), max(each)

    @property
    def balance_gain(self) -> float:
        return self.solved.served_balancedness - self.rival.served_balancedness


def measured(
    recorded: Recorded, case: Case, protocol: str, rule: Rule, extra: float, wheels: str, work: float, seed: int,
    workers: int, draws: int,
) -> Measured:  # fmt: skip
    """Solves a case for a rule, and serves it by the engine's own functions.

    Args:
        draws: How often both sides are placed again for loads that are changed by chance; 0: never.
    """
    setting = Setting("prefill", rule.dispatch, extra)
    posed = [each.with_rules(message=rule.message) for each in problems(case.train, setting, recorded.experts)]
    both = []
    for strategy in (SOLVED, RIVAL):
        answers = plan_layers(posed, strategy, Stop(work), seed, workers, certify=False)
        frames = [judged(problem, layer) for problem, layer in zip(posed, case.test, strict=True)]
        both.append(served(frames, [answer.slots for answer in answers], rule, wheels, seed))
    again = [_redrawn(posed, case, strategy, draws, work, seed, workers) for strategy in (SOLVED, RIVAL)]
    redrawn = (again[0], again[1]) if draws else None
    return Measured(rule.name, extra, protocol, case.name, both[0], both[1], redrawn)


def _redrawn(
    posed: Sequence[LayerProblem], case: Case, strategy: str, draws: int, work: float, seed: int, workers: int
) -> Redrawn:
    """One side over draws, each of which changes the load of every expert by CHANGE at random."""
    found = []
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        changed = [each.with_data(load=_changed(each, rng)) for each in posed]
        answers = plan_layers(changed, strategy, Stop(work), seed + draw, workers, certify=False)
        frames = [judged(problem, layer) for problem, layer in zip(posed, case.test, strict=True)]
        scores = [score_layer(frame, one.slots) for frame, one in zip(frames, answers, strict=True)]
        found.append(float(np.mean([score.balancedness for score in scores])))
    mean = float(np.mean(found)) if found else 0.0
    return Redrawn(mean, float(np.std(found, ddof=1)) / draws**0.5 if draws > 1 else 0.0)


def _changed(problem: LayerProblem, rng: np.random.Generator) -> FloatArray:
    """[windows, experts] the loads, each expert's changed alike in all windows; as many copies a token as before."""
    load = problem.data.load * np.exp(rng.normal(0.0, CHANGE, problem.experts))
    return np.asarray(load * (problem.data.load.sum(axis=1) / load.sum(axis=1))[:, None], dtype=np.float64)


def served(
    frames: Sequence[LayerProblem], placements: Sequence[IntArray], rule: Rule, wheels: str, seed: int
) -> Served:
    """A plan's layers on the routing that judges: every token at every home, in an order of its own."""
    tables, drawn = None, None
    if rule.engine == "sglang":
        topology = frames[0].topology
        drawn = drawn_copies(placements, topology)
        tables, _ = sglang_copies(
            str(Path(wheels) / "sglang"), np.stack(placements), frames[0].experts, topology.gpus,
            topology.gpus // topology.os_gpus,
        )  # fmt: skip
    found = []
    for i, (problem, slots) in enumerate(zip(frames, placements, strict=True)):
        table, fractions = None if tables is None else tables[:, i], None
        if drawn is not None:
            fractions = np.zeros((problem.topology.gpus, problem.slots))
            np.put_along_axis(fractions, drawn[i], 1.0, axis=1)
        score = score_layer(problem, slots, fractions)
        each = [_as_served(problem, w, slots, table, wheels, seed + i) for w in range(problem.windows)]
        found.append((score.time_s * 1e6, score.balancedness, *(problem.data.window_weight @ np.array(each))))
    us, balance, served_us, served_balance = np.array(found).mean(axis=0).tolist()
    return Served(us, served_us, balance, served_balance, tuple(float(each[2]) for each in found))


def _as_served(
    problem: LayerProblem, window: int, slots: IntArray, table: IntArray | None, wheels: str, seed: int
) -> tuple[float, float]:
    """(Microseconds, balancedness) of a layer on one window of routing, where the engine picks the copies."""
    ids, gpus, tariff = _tokens(problem, window, seed), problem.topology.gpus, tariff_of(problem)
    home, copies = np.repeat(np.arange(gpus), len(ids)), np.arange(len(ids))
    # Each home has the tokens in the same order from another one on, so that one index is of several tokens.
    mine = [np.roll(copies, g * len(ids) // gpus) for g in range(gpus)]
    if table is not None:
        chosen = np.concatenate([table[g][ids[order]] for g, order in enumerate(mine)])
    else:
        held, count = _held(slots, problem.experts)
        wheel = str(Path(wheels) / "vllm")
        chosen = np.concatenate([vllm_slots(wheel, ids[order], held, count) for order in mine])
    matrix = concrete_messages(problem, home, chosen).matrix
    messages = np.asarray(matrix * (tariff.rates.tokens_per_gpu / len(ids)), dtype=np.float64)
    dispatch, combine = tariff.message_seconds(matrix_loads(problem, messages[None]))
    load = np.bincount(chosen.reshape(-1), minlength=problem.slots) / len(home)
    work = tariff.slot_times(tariff.all_tokens * load).reshape(-1, gpus, problem.hardware.slots_per_gpu).sum(axis=2)
    seconds = tariff.layer_seconds(dispatch + combine, work.max(axis=1)[:, None])
    on_gpu = load.reshape(gpus, -1).sum(axis=1)
    return float(seconds[0]) * 1e6, float(on_gpu.mean() / on_gpu.max())


def _tokens(problem: LayerProblem, window: int, seed: int) -> IntArray:
    """[tokens, k] the routing that judges, token by token, in a random order."""
    sets = problem.data.sets
    if sets is None:
        raise RuntimeError("recorded routing has token sets")
    weight = sets.weight[window]
    times = np.rint(weight / weight[weight > 0].min()).astype(np.int64)
    return np.asarray(np.random.default_rng(seed).permutation(np.repeat(sets.ids, times, axis=0)), dtype=np.int64)


def _held(slots: IntArray, experts: int) -> tuple[IntArray, IntArray]:
    """([experts, most copies] slots, padded with -1, [experts] how many)."""
    count = np.bincount(slots, minlength=experts)
    held = np.full((experts, int(count.max())), -1)
    for expert in range(experts):
        held[expert, : count[expert]] = np.flatnonzero(slots == expert)
    return held, count
