"""What an engine loads and sends: its rules on degrees and slots, its limits, and the message rule of each phase.

A rule is a function of a layout; the engine's catalog entry names those that bind it, with the place where it was read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from placement.problem.split import Split, redundant_problem
from specs.blocks.recurrent import Recurrent
from specs.cluster import Cluster
from specs.engine import MessageRule, Rule, RuleName
from specs.model import Model
from specs.scenario import Pins, Scenario
from specs.workload import Phase, ServingWorkload

#: Stages of this many GPUs, and multiples of it, are run beside powers of two: of 1,654 configured layouts none has
#: another size (EP 24, 40, 48, 56), and no TP or PP but powers of two.
USUAL_STEP = 8


@dataclass(frozen=True)
class Layout:
    """Degrees and redundant experts of a split, for a model on a cluster."""

    model: Model
    cluster: Cluster
    tp: int
    ep: int
    pp: int
    dp: int
    redundant: int

    @classmethod
    def of(cls, scenario: Scenario, split: Split) -> Layout:
        """The layout of a split."""
        return cls(scenario.model, scenario.cluster, split.tp, split.ep, split.pp, split.dp, split.redundant)

    @property
    def stage(self) -> int:
        """GPUs of a stage."""
        return self.tp * self.dp


Sizes = Sequence[int]

#: What a layout breaks of each rule; "" where it keeps it.
RULES: dict[RuleName, Callable[[Layout, Sizes], str]] = {
    "ep_all_or_one": lambda at, _: _unless(at.ep in (1, at.stage), f"ep {at.ep} is neither 1 nor tp x dp = {at.stage}"),
    "ep_all": lambda at, _: _unless(at.ep == at.stage, f"ep {at.ep} is not tp x dp = {at.stage}"),
    "ep_sizes": lambda at, sizes: _unless(at.ep == 1 or at.ep in sizes, f"ep {at.ep} is none of {_listed(sizes)}"),
    "ep_at_most": lambda at, sizes: _unless(at.ep <= sizes[0], f"ep {at.ep} is more than {sizes[0]}"),
    "ep_whole_nodes": lambda at, sizes: _unless(
        at.ep <= sizes[0] or at.ep % sizes[0] == 0, f"ep {at.ep} is neither up to {sizes[0]} nor a multiple of it"
    ),
    "experts_divide": lambda at, _: _unless(
        at.model.moe.experts % at.ep == 0, f"ep {at.ep} does not divide the {at.model.moe.experts} experts"
    ),
    "tp_or_dp": lambda at, _: _unless(1 in (at.tp, at.dp), f"tp {at.tp} and dp {at.dp} are both more than 1"),
    "attention_whole": lambda at, _: _unless(at.tp == 1, f"tp {at.tp} is not 1"),
    "several_attention_ranks": lambda at, _: _unless(at.dp > 1, "dp is 1"),
    "one_node": lambda at, _: _unless(
        at.stage <= at.cluster.gpus_per_node,
        f"tp x dp = {at.stage} is more than a node of {at.cluster.gpus_per_node} GPUs",
    ),
    "one_stage": lambda at, _: _unless(at.pp == 1, f"pp {at.pp} is not 1"),
    "one_stage_with_states": lambda at, _: _unless(
        at.pp == 1 or not any(isinstance(mixer, Recurrent) for mixer in at.model.mixers.values()),
        f"pp {at.pp} is not 1, and layers keep states",
    ),
    "top_k_at_most": lambda at, sizes: _unless(
        at.model.moe.top_k <= sizes[0], f"top_k {at.model.moe.top_k} is more than {sizes[0]}"
    ),
    "replicas_need_ep": lambda at, _: _unless(
        at.redundant == 0 or at.ep > 1, f"{at.redundant} redundant experts without expert parallelism"
    ),
    "replicas_need_attention_dp": lambda at, _: _unless(
        at.redundant == 0 or at.dp > 1, f"{at.redundant} redundant experts without attention data parallelism"
    ),
}  # fmt: skip


def _unless(holds: bool, broken: str) -> str:
    return "" if holds else broken


def _listed(sizes: Sizes) -> str:
    return ", ".join(map(str, sizes))


def _broken(rules: Sequence[Rule], layout: Layout) -> str:
    """What the layout breaks of the first rule that it breaks, with the rule's source; "" where it keeps all."""
    for rule in rules:
        problem = RULES[rule.name](layout, rule.sizes)
        if problem:
            return f"{problem} ({rule.source})"
    return ""


def load_problem(scenario: Scenario, layout: Layout, role: str | None = None) -> str:
    """Why the scenario's engine does not load a layout in a role, or in any; "" where it does."""
    problem = _not_loaded(scenario, layout, [None])
    return problem or ("" if role is None else role_problem(scenario, layout, role))


def role_problem(scenario: Scenario, layout: Layout, role: str) -> str:
    """Why the scenario's engine can't run a layout in a role that it loads in some; "" where it can."""
    engine = scenario.engine
    if problem := _not_loaded(scenario, layout, role_phases(scenario, role)):
        return problem
    problem = _broken(engine.role_rules.of_role(role), layout)
    return problem and f"{engine.label} does not run it for {role} alone: {problem}"


def _not_loaded(scenario: Scenario, layout: Layout, phases: Sequence[Phase | None]) -> str:
    """What a layout breaks of the engine's rules that these phases ask for."""
    engine = scenario.engine
    problem = _broken([each for each in (*engine.rules, *engine.in_use.rules) if each.phase in phases], layout)
    return problem and f"{engine.label} with {engine.backend} does not load it: {problem}"


def slots_problem(scenario: Scenario, split: Split, redundant: int) -> str:
    """Why a split can't have that many redundant experts instead; "" where it can."""
    layout = replace(Layout.of(scenario, split), redundant=redundant)
    return redundant_problem(scenario.model, split.ep, redundant) or load_problem(scenario, layout)


def usual(scenario: Scenario, pins: Pins, layout: Layout) -> bool:
    """Whether every degree that is not pinned is one that somebody runs, or the scenario takes any."""
    if scenario.degrees == "any":
        return True
    free = (
        (pins.tp, _power_of_two(layout.tp)),
        (pins.pp, _power_of_two(layout.pp)),
        (pins.dp or pins.ep, usual_size(layout.stage)),
        (pins.ep, usual_size(layout.ep)),
    )
    return all(fine for pin, fine in free if pin is None)


def _power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


def usual_size(gpus: int) -> bool:
    """Whether somebody runs stages of so many GPUs: powers of two, and multiples of USUAL_STEP."""
    return _power_of_two(gpus) or gpus % USUAL_STEP == 0


def message_rule(scenario: Scenario, split: Split, phase: Phase) -> MessageRule:
    """What a token is sent once per in a phase: the scenario's own, or that of the engine's all-to-all backend.

    Training sends as prefill does, in bulk.
    """
    if scenario.message_rule is not None:
        return scenario.message_rule
    backend = scenario.engine.in_use
    if backend.dense_unless and _broken(backend.dense_unless, Layout.of(scenario, split)):
        return "dense"
    return backend.decode if phase == "decode" else backend.prefill


def reserve_bytes(scenario: Scenario, split: Split) -> float:
    """HBM of a GPU that weights, KV cache and what else is counted must leave to the engine."""
    if scenario.reserve_gib is not None:
        return scenario.reserve_gib * 2**30
    reserve, workload = scenario.engine.reserve, scenario.workload
    gib = reserve.gib + reserve.gib_per_gpu * split.gpus_per_instance
    if workload.kind == "serving":
        gib += reserve.mib_per_prefill_token / 2**10 * prefill_tokens(scenario, workload, split.tp)
    return reserve.share * scenario.cluster.least_gpu.hbm_bytes + max(gib, reserve.least_gib) * 2**30


def prefill_tokens(scenario: Scenario, workload: ServingWorkload, tp: int) -> float:
    """Most tokens of an attention rank of `tp` GPUs in a prefill pass: what is asked for, and the engine takes.

    Longer prompts take several passes, short ones that arrive together share one.
    """
    backend, asked = scenario.engine.in_use, float(workload.prefill_tokens_per_gpu * tp)
    if workload.chunk_tokens is not None:
        asked = float(workload.chunk_tokens)
    else:
        for each in scenario.engine.prefill_passes:
            if each.below_gib is None or scenario.cluster.least_gpu.hbm_gib < each.below_gib:
                asked = min(asked, float(each.tokens))
                break
    if backend.prefill_tokens is None:
        return asked
    return min(asked, float(backend.prefill_tokens * (tp if backend.tokens_per == "gpu" else 1)))


def most_sequences(scenario: Scenario, tp: int, pp: int) -> int | None:
    """Most sequences of an attention rank that the engine's scheduler and buffers take; None: no limit is known.

    Training has none.
    """
    engine, backend = scenario.engine, scenario.engine.in_use
    if scenario.workload.kind == "training":
        return None
    limits = [] if engine.sequences is None else [engine.sequences]
    if backend.decode_tokens is not None:
        tokens = backend.decode_tokens * pp * (tp if backend.tokens_per == "gpu" else 1)
        limits.append(max(1, tokens // scenario.workload.step_tokens))
    return min(limits, default=None)


def engine_notes(scenario: Scenario, split: Split, role: str = "aggregated") -> tuple[str, ...]:
    """What a user of the plan must know of the engine, one sentence each."""
    engine, notes = scenario.engine, []
    if split.ep == 1:
        return ()
    dense = [phase for phase in role_phases(scenario, role) if message_rule(scenario, split, phase) == "dense"]
    if dense:
        where = "" if len(dense) == len(role_phases(scenario, role)) else f" in {dense[0]}"
        notes.append(f"every token goes to every GPU{where}: expert placement buys balance alone")
    if not engine.static_map:
        notes.append("it loads no static expert map: this placement needs a plug-in for its balancer's policy")
    groups, gpus = scenario.model.moe.groups, split.gpus_per_instance
    nodes = -(-gpus // scenario.cluster.os_node_gpus)
    if engine.balancer is not None and nodes > 1 and groups % nodes == 0:
        notes.append(
            f"its own balancer keeps the {groups} expert groups on {nodes} OS nodes (hierarchical), which costs "
            f"balance; to avoid it: {engine.balancer.switch}"
        )
    return tuple(notes)


def phases_of(scenario: Scenario) -> tuple[Phase, ...]:
    """The phases that the scenario's workload has."""
    return ("decode", "prefill") if scenario.workload.kind == "serving" else ("train",)


def role_phases(scenario: Scenario, role: str = "aggregated") -> tuple[Phase, ...]:
    """The phases that instances of a role run."""
    if role in ("prefill", "decode") and scenario.workload.kind == "serving":
        return ("prefill",) if role == "prefill" else ("decode",)
    return phases_of(scenario)
