"""Which recipes rival a scenario's deployment: the nearest that engineers configured, their rules, and plain grids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from placement.cost.step.roles import Role
from placement.problem.engine_rules import usual_size
from placement.problem.split import stage_problem
from solvers.deploy.rivals.layouts import families, gpus_of, name_of, named, powers
from solvers.deploy.rivals.recipes import nearest_entries
from solvers.split.degrees import divisors
from specs.cluster import Cluster
from specs.scenario import Scenario

ROLES: tuple[Role, ...] = ("aggregated", "prefill", "decode")
#: Decode groups are configured up to this many GPUs where the fast-link domain is larger.
WIDEST = 64

#: Wide EP is published up to this many GPUs.
MOST_WIDE = 144
WIDE = (
    "SGLang on 12 x 8 H100 (LMSYS, 2025-05-05): prefill EP 32, decode EP 72; DeepSeek's inference system (2025-02-28): "
    "prefill EP 32, decode EP 144"
)
DEEP = "vLLM's guide to distributed serving: tensor parallel over the GPUs of a node, pipeline parallel over nodes"
#: Where the points come from; recipes.yaml has the addresses.
FIELD = "InferenceX, srt-slurm, vLLM recipes, Dynamo, SGLang (August 2026)"


@dataclass(frozen=True)
class Allowed:
    """Layouts that a recipe allows a role in a pool.

    Attributes:
        smallest: only those on the fewest GPUs that hold the model, and on twice as many; `layouts` ascend.
    """

    pool: int
    role: Role
    layouts: tuple[str, ...]
    smallest: bool = False


@dataclass(frozen=True)
class Recipe:
    """A way to deploy by rule.

    Attributes:
        source: where it comes from. allowed: its layouts; the best of them, and their counts, are the rival.
    """

    name: str
    source: str
    allowed: tuple[Allowed, ...]


def recipes_of(pools: Sequence[Scenario], roles: Sequence[Role]) -> tuple[Recipe, ...]:
    """Every recipe of a scenario.

    Args:
        pools: the scenario on each pool's cluster. roles: that instances may have.
    """
    found = []
    for recipe in (*_configured(pools), *_rules(pools), *_grids(pools)):
        held = tuple(_lying_on(pools[each.pool].cluster, each) for each in recipe.allowed if each.role in roles)
        if held:
            found.append(replace(recipe, allowed=held))
    return tuple(found)


def _configured(pools: Sequence[Scenario]) -> list[Recipe]:
    """What was configured for the model's family, and for other models of its size, on each pool's nearest GPUs."""
    nearest = [nearest_entries(pool.model, pool.cluster) for pool in pools]
    found = []
    for of_family in (True, False):
        mine = [
            (index, entry)
            for index, entries in enumerate(nearest)
            for entry in (entries.of_family if of_family else entries.of_size)
        ]
        if not mine:
            continue
        distinct = {(entry.family, entry.gpu): entry for _, entry in mine}
        gpus = " and ".join(dict.fromkeys(entry.gpu for entry in distinct.values()))
        points = sum(entry.points for entry in distinct.values())
        models = ", ".join(dict.fromkeys(entry.family for entry in distinct.values()))
        name = f"configured for {models} on {gpus}" if of_family else f"configured for models of its size on {gpus}"
        source = f"{points} points of {FIELD}" + ("" if of_family else f": {models}")
        layouts: dict[tuple[int, Role], dict[str, None]] = {}
        for index, entry in mine:
            for role in ROLES:
                layouts.setdefault((index, role), {}).update(dict.fromkeys(entry.layouts(role)))
        allowed = tuple(Allowed(index, role, tuple(names)) for (index, role), names in layouts.items() if names)
        found.append(Recipe(name, source, allowed))
    return found


def _rules(pools: Sequence[Scenario]) -> list[Recipe]:
    """Prefill on the fewest GPUs that hold the model; decode by TP at low concurrency, by DEP at high concurrency."""
    kinds: dict[str, tuple[str, ...]] = {
        "low concurrency: smallest prefill, TP or TEP decode": ("TP", "TEP"),
        "high concurrency: smallest prefill, DEP decode": ("DEP",),
    }
    source = f"what holds over 1,654 configured points of {FIELD}"
    return [
        Recipe(
            name, source,
            tuple(
                allowed
                for index, pool in enumerate(pools)
                for allowed in (
                    Allowed(index, "prefill", families(powers(pool.cluster.gpus)), smallest=True),
                    Allowed(index, "decode", families(_widths(pool.cluster), decode)),
                )
            ),
        )
        for name, decode in kinds.items()
    ]  # fmt: skip


def _grids(pools: Sequence[Scenario]) -> list[Recipe]:
    small, wide = families((1, 2)), families((2, 4, 8, 16), ("TEP", "DEP"))
    found = [
        Recipe(
            "grid: prefill on 1 or 2 GPUs, decode EP 2 to 16", "a common first sweep",
            tuple(a for p in range(len(pools)) for a in (Allowed(p, "prefill", small), Allowed(p, "decode", wide))),
        ),
    ]  # fmt: skip
    plain: tuple[tuple[str, str, Callable[[Cluster], tuple[str, ...]]], ...] = (
        ("TP only", "a default of engines", lambda on: families(powers(on.gpus_per_node), ("TP",))),
        ("EP only", "attention data-parallel, experts over the same GPUs", lambda on: families(_boxes(on), ("DEP",))),
        ("powers of two", "TP, TEP, DEP and DTP on powers of two of a node's GPUs", lambda on: families(_boxes(on))),
        ("wide EP: DEP over whole nodes", WIDE, lambda on: families(_whole_nodes(on), ("DEP",))),
        ("TP in a node, PP over nodes", DEEP, _deep),
    )
    for name, source, layouts in plain:
        allowed = tuple(Allowed(p, role, layouts(pool.cluster)) for p, pool in enumerate(pools) for role in ROLES)
        found.append(Recipe(name, source, allowed))
    return found


def _boxes(cluster: Cluster) -> tuple[int, ...]:
    return powers(cluster.gpus_per_node)


def _whole_nodes(cluster: Cluster) -> tuple[int, ...]:
    """A node, as many as hold up to MOST_WIDE GPUs, and the powers of two inside one, which wide decode is fed by."""
    most = max(1, MOST_WIDE // cluster.gpus_per_node)
    nodes = [cluster.gpus_per_node * n for n in range(1, min(cluster.nodes, most) + 1)]
    return tuple(sorted({*_boxes(cluster), *nodes}))


def _deep(cluster: Cluster) -> tuple[str, ...]:
    """All GPUs of a node as one TP group, a stage for each node of a power of two of nodes."""
    largest = max(size for size in powers(cluster.gpus_per_node) if cluster.gpus_per_node % size == 0)
    return tuple(
        f"{kind}{largest}" + (f"xPP{stages}" if stages > 1 else "")
        for stages in powers(cluster.nodes)
        for kind in ("TP", "TEP")
    )


def _widths(cluster: Cluster) -> tuple[int, ...]:
    """GPUs of a decode group: within a fast-link domain, or two boxes for what one does not hold."""
    return powers(min(WIDEST, 2 * cluster.gpus_per_node, cluster.gpus))


def _lying_on(cluster: Cluster, allowed: Allowed) -> Allowed:
    """The layouts by size; for one that neither divides a node nor fills nodes the nearest on either side that does."""
    names = {each for name in allowed.layouts for each in _nearest(cluster, name)}
    return replace(allowed, layouts=tuple(sorted(names, key=lambda name: (gpus_of(name), name))))


def _nearest(cluster: Cluster, name: str) -> tuple[str, ...]:
    degrees, room = named(name), cluster.gpus_per_node
    size = degrees.tp * degrees.dp
    if not stage_problem(cluster, size) or 1 not in (degrees.tp, degrees.dp) or degrees.ep not in (1, size):
        return (name,)
    sizes = [each for each in divisors(room) if usual_size(each)]
    sizes += [room * nodes for nodes in range(2, cluster.nodes + 1)]
    below, above = [each for each in sizes if each < size][-1:], [each for each in sizes if each > size][:1]
    return tuple(
        name_of(
            replace(
                degrees,
                tp=1 if degrees.tp == 1 else each,
                dp=1 if degrees.dp == 1 else each,
                ep=1 if degrees.ep == 1 else each,
            )
        )
        for each in (*below, *above)
    )
