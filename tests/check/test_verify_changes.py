"""No single change of a plan goes unseen: it is refused, fails a check, or lies where verify speaks of a claim."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from placement.check.plan import findings
from placement.cli.main import cli
from placement.cli.running import outcome
from placement.errors import InputError
from placement.records.plan import Plan, plan_from_json
from tests.cli.conftest import TINY

#: Of the question (which verify takes as it stands) what no figure of one of these plans hangs on: free text; limits
#: that are raised, and pins lifted; prices of what the plan has not, or of links that are never the slowest; what only
#: `deploy`, synthetic routing, serving or training looks at; what the engine could do besides, and the HBM that it
#: would leave (the scenario says how much); what is not planned of the model; by what a router chooses experts (which
#: ones, the routing says; its matrix weighs them either way); the block of scales, which these 16-bit weights have not.
IDLE = re.compile(
    r"scenario\.spec\.(.*\b(name|summary|source|aliases|generation)|workload\.t(tf|po)t_ms|((prefill|decode)_)?pins\.\w+"
    r"|model\.moe\.shared_(width|gate)|cluster\.fast\.\w+|workload\.decode_tokens_per_gpu|routing\.\w+|model\.moe\.groups"
    r"|model\.left_out(\[\d\])?|model\.moe\.hash_routed|model\.types\.block"
    r"|model\.tied_embedding|model\.types\.kv_cache|cluster\.gpus_per_tray|workload\.chunks|cluster\.gpus_per_os_node"
    r"|engine\.(assumes|overlaps|workloads|stage_cut|static_map|sequences|reserve\.\w+)"
    r"|engine\.(runs.*|prefill_passes.*|decode_prefix_cache|shares_prompts)"
    r"|engine\.backends\.all_to_all\.(dispatch(\[\d\])?|quantizes|decode|decode_tokens|prefill_tokens|tokens_switch))"
)
#: Valid values of texts that can't be any text.
WORDS = (
    ("serving", "decode", "prefill"), ("time", "load", "traffic"), ("even", "nearest", "planned"), ("bf16", "fp8"),
    ("optimal", "feasible"), ("per_node", "per_rank", "per_expert"), ("finished", "work"), ("roofline", "calibrated"),
    ("none", "selective", "full"), ("1f1b", "gpipe"), ("us", "max_over_mean", "bytes_per_token"),
    ("aggregated", "disaggregated"), ("all", "first-half"), ("all", "second-half"), ("trace", "counts"), ("mla", "gqa"),
)  # fmt: skip
FIGURE = {"value": 1.0, "provenance": "roofline", "moe_layer": "scored placement"}
TIMINGS = dict.fromkeys(("total_s", "split_s", "routing_s", "solve_s"), 1.0)
NOTHING = (1, 1.0, "x", True, [], [1], ["none"], [[0.5]], FIGURE, TIMINGS)


@pytest.fixture(scope="module")
def plans(folder: Path) -> dict[str, tuple[dict[str, Any], tuple[str, ...]]]:
    """Small plans of each kind, as plain data, with the traces they were solved on."""
    train = copy.deepcopy(TINY)
    train["workload"] = {"kind": "training", "name": "t", "global_batch": 32, "sequence": 64, "recompute": "auto"}
    train["pins"] = {"tp": 1, "ep": 2, "pp": 2, "dp": 2}
    (folder / "train.yaml").write_text(yaml.safe_dump(train))
    a, b, counts = (str(folder / name) for name in ("a.npz", "b.npz", "counts.npz"))
    tiny, recorded, lost = (str(folder / name) for name in ("tiny.yaml", "recorded.json", "lost.json"))
    quick = ("--work", "0.05", "--workers", "1", "--json")
    made: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "recorded": ((), (a,)),
        "training": (("solve", "--spec", str(folder / "train.yaml"), "--strategy", "search"), ()),
        "planned": (("solve", "--spec", tiny, "--strategy", "search", "--dispatch", "planned", "--timings"), ()),
        "counts": (("solve", "--spec", tiny, "--strategy", "eplb", "--loads", counts), (counts,)),
        "lost": (("migrate", "--plan", recorded, "--trace", b, "--max-moves", "9", "--failed-gpu", "2"), ()),
        "failed": (("migrate", "--plan", lost, "--trace", a, "--max-moves", "3"), (a,)),
    }  # fmt: skip
    found = {}
    for name, (args, traces) in made.items():
        if args:
            assert outcome(cli, "placement", [*args, *quick, "--out", str(folder / f"{name}.json")]) == 0
        found[name] = (json.loads((folder / f"{name}.json").read_text()), traces)
    return found


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every place in plain data and what it holds; of a list, the first and last of values, and of like records."""
    if path:
        yield path, value
    keys: list[Any] = list(value) if isinstance(value, dict) else []
    if isinstance(value, list):
        alike: dict[frozenset[str], list[int]] = {}
        for i, each in enumerate(value):
            given = (name for name, held in each.items() if held is not None) if isinstance(each, dict) else ()
            alike.setdefault(frozenset(given), []).append(i)
        keys = sorted({end for found in alike.values() for end in (found[0], found[-1])})
    for key in keys:
        yield from places(value[key], (*path, key))


def changes(value: Any) -> Iterator[Any]:
    """Other values that a field could have; most fields refuse some of them."""
    if value is None:
        yield from NOTHING
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value - 1)
    elif isinstance(value, float):
        yield value * 1.01 + 1e-3
    elif isinstance(value, str):
        yield from {word for words in WORDS if value in words for word in words if word != value} or [value + "x"]
    elif isinstance(value, list):
        yield value[:-1] if value else [[0.5]]
        yield [*value, *(value[-1:] or ["x"])]
    if value is not None and not isinstance(value, dict):
        yield None


def put(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Plain data with one place changed."""
    if not path:
        return value
    data = copy.copy(data)
    data[path[0]] = put(data[path[0]], path[1:], value)
    return data


def written(path: tuple[Any, ...]) -> str:
    """A path as verify writes it."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)[1:]


def opened(field: str) -> str:
    """A pattern of the paths at and under a field that is left open."""
    return re.escape(field).replace(r"\[\]", r"\[\d+\]") + r"($|[.\[])"


def fails(plan: Plan, traces: tuple[str, ...]) -> bool:
    """Whether verify refuses a plan, or a check of it fails."""
    try:
        return any(check.passed is False for check in findings(plan, traces))
    except InputError:
        return True


@pytest.mark.parametrize(
    ("kind", "routed"),
    [
        ("recorded", True),
        ("recorded", False),
        ("training", True),
        ("planned", True),
        ("counts", True),
        ("failed", True),
    ],
)
def test_no_single_change_goes_unseen(plans: dict[str, Any], kind: str, routed: bool) -> None:
    data, traces = plans[kind]
    traces = traces if routed else ()
    sound = list(findings(plan_from_json(json.dumps(data), "p.json"), traces))
    assert all(check.passed is not False for check in sound)
    # Prices that only figures show are open without the routing.
    told = [opened(field) for check in sound if check.name != "question" or not routed for field in check.fields]
    tried, unseen = 0, []
    for path, value in places(data):
        for other in changes(value):
            try:
                plan = plan_from_json(json.dumps(put(data, path, other)), "p.json")
            except InputError:
                continue
            tried, name = tried + 1, written(path)
            open_ = IDLE.fullmatch(name) or any(re.match(pattern, name) for pattern in told)
            if not open_ and not fails(plan, traces):
                unseen.append((name, value, other))
    assert unseen == []
    assert tried > 300
