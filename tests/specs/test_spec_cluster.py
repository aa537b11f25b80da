"""Clusters: levels inside a node, OS nodes, GPUs of several kinds."""

from __future__ import annotations

from typing import Any

import pytest

from specs.cluster import Cluster
from specs.errors import InputError
from specs.loading import list_catalog, load_cluster
from specs.validation import validate

H100 = {"name": "H100", "generation": "hopper", "hbm_gib": 80.0, "hbm_gb_per_s": 3350.0,
        "peak_tflops": {"fp32": 67.0, "bf16": 990.0, "fp8": 1980.0}}  # fmt: skip
A100 = {"name": "A100", "generation": "ampere", "hbm_gib": 40.0, "hbm_gb_per_s": 1555.0,
        "peak_tflops": {"fp32": 19.5, "bf16": 312.0, "int8": 624.0}}  # fmt: skip
PAIRS = {"name": "nvlink_pair", "gpus": 2, "gb_per_s": 300.0, "latency_us": 2.0}
SOCKETS = {"name": "socket", "gpus": 4, "gb_per_s": 60.0, "latency_us": 3.0}


def cluster(**changes: Any) -> Cluster:
    """Two nodes of eight H100: NVLink pairs, sockets of four."""
    fields = {
        "name": "mine", "nodes": 2, "gpus_per_node": 8, "gpu": H100, "inner": [PAIRS, SOCKETS],
        "fast": {"gb_per_s": 20.0, "latency_us": 4.0}, "slow": {"gb_per_s": 25.0, "latency_us": 5.0},
    }  # fmt: skip
    made: Cluster = validate(Cluster, fields | changes, "mine.yaml")
    return made


@pytest.mark.parametrize(("gpus", "rate"), [(1, 300), (2, 300), (3, 20), (4, 60), (5, 20), (6, 20), (8, 20)])
def test_a_group_crosses_the_innermost_level_that_no_such_group_straddles(gpus: int, rate: float) -> None:
    assert cluster().inside(gpus).gb_per_s == rate
    assert cluster(inner=[]).inside(gpus).gb_per_s == 20


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"inner": [{**PAIRS, "gpus": 3}]}, "nvlink_pair has 3 GPUs"),
        ({"inner": [{**PAIRS, "gpus": 8}]}, "nvlink_pair has 8 GPUs"),
        ({"inner": [SOCKETS, PAIRS]}, "socket has 4 GPUs"),
        ({"inner": [{**SOCKETS, "gb_per_s": 10.0}]}, "socket reaches 10 GB/s, less than the 20"),
        ({"inner": [{**PAIRS, "efficiency": 0.1}, SOCKETS]}, "nvlink_pair reaches 30 GB/s, less than the 60"),
        ({"gpus_per_os_node": 3}, "not a multiple of gpus_per_os_node 3"),
        ({"other_nodes": [{"nodes": 2, "gpu": A100}]}, "other_nodes are 2 of 2 nodes"),
        ({"inner": [{**PAIRS, "width": 1}]}, "inner[0].width"),
    ],
)
def test_levels_that_do_not_nest_are_refused_in_one_line(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as refused:
        cluster(**changes)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_os_node_is_a_node_unless_it_says_otherwise() -> None:
    assert cluster().os_node_gpus == 8
    assert cluster(gpus_per_os_node=4).os_node_gpus == 4


def test_the_last_nodes_may_have_other_gpus() -> None:
    mixed = cluster(nodes=4, other_nodes=[{"nodes": 1, "gpu": A100}, {"nodes": 1, "gpu": {**H100, "name": "H200"}}])
    assert [mixed.kind_of_node(node).name for node in range(4)] == ["H100", "H100", "A100", "H200"]
    least = mixed.least_gpu
    assert (least.name, least.generation) == ("H100 + A100 + H200", None)
    assert (least.hbm_gib, least.hbm_gb_per_s) == (40, 1555)
    # An A100 multiplies fp8 as bf16, and so does what both have.
    assert {kind: least.peak_flops(kind) for kind in ("bf16", "fp8")} == {"bf16": 312e12, "fp8": 312e12}
    assert cluster().least_gpu == cluster().gpu
    assert cluster(other_nodes=[{"nodes": 1, "gpu": H100}]).least_gpu == cluster().gpu


def test_what_a_cluster_does_not_have_is_not_written() -> None:
    data = cluster(inner=[]).model_dump(mode="json")
    assert list(data) == ["name", "summary", "gpu", "nodes", "gpus_per_node", "gpus_per_tray", "fast", "slow"]
    whole = cluster(gpus_per_os_node=4, other_nodes=[{"nodes": 1, "gpu": A100}])
    assert Cluster.model_validate_json(whole.model_dump_json()) == whole
    assert {"inner", "gpus_per_os_node", "other_nodes"} < set(whole.model_dump())


@pytest.mark.parametrize("name", [entry.name for entry in list_catalog("cluster")])
def test_every_cluster_of_the_catalog_loads_and_names_its_sources(name: str) -> None:
    made = load_cluster(name)
    assert made.name == name
    assert made.gpu.generation
    assert all(part.source for part in (made.gpu, made.fast, made.slow, *made.inner))
    assert made.gpu.peak_flops("bf16") < 4e15
