"""The scenarios of the benchmark: the catalog's own, and those in which a recipe is likely to fall short."""

from __future__ import annotations

from dataclasses import dataclass

from specs.cluster import Cluster
from specs.loading import list_catalog, load_cluster, load_model, load_scenario
from specs.scenario import Scenario
from specs.workload import ServingWorkload


@dataclass(frozen=True)
class Case:
    """A scenario that is not in the catalog.

    Attributes:
        kind: what is special about it. model: of the catalog. pools: clusters of the catalog with their nodes.
        isl, osl, ttft_ms, tpot_ms: its workload.
    """

    name: str
    kind: str
    model: str
    pools: tuple[tuple[str, int], ...]
    isl: int = 4096
    osl: int = 1024
    ttft_ms: float = 2000.0
    tpot_ms: float = 30.0

    def scenarios(self) -> tuple[Scenario, ...]:
        """The scenario on each pool's cluster."""
        workload = ServingWorkload(
            kind="serving", name=f"serving_{self.isl}_{self.osl}", isl=self.isl, osl=self.osl, ttft_ms=self.ttft_ms,
            tpot_ms=self.tpot_ms,
        )  # fmt: skip
        model = load_model(self.model)
        return tuple(
            Scenario(name=self.name, model=model, cluster=_cluster(name, nodes), workload=workload)
            for name, nodes in self.pools
        )


def _cluster(name: str, nodes: int) -> Cluster:
    return load_cluster(name).model_copy(update={"nodes": nodes})


CASES = (
    Case("gpt_oss_120b_gb200_tight", "tight limits", "gpt_oss_120b", (("gb200_nvl72_ib", 8),), ttft_ms=400, tpot_ms=8),
    Case("deepseek_r1_gb200_tight", "tight limits", "deepseek_r1", (("gb200_nvl72_ib", 8),), ttft_ms=1000, tpot_ms=15),
    Case("deepseek_r1_h200_tight", "tight limits", "deepseek_r1", (("h200_hgx_ib", 8),), ttft_ms=1200, tpot_ms=25),
    Case("qwen3_235b_h100_tight", "tight limits", "qwen3_235b", (("h100_hgx_ib", 4),), ttft_ms=600, tpot_ms=15),
    Case("deepseek_r1_h200_b200", "unequal pools", "deepseek_r1", (("h200_hgx_ib", 4), ("b200_hgx_ib", 2))),
    Case("gpt_oss_120b_h100_gb200", "unequal pools", "gpt_oss_120b", (("h100_hgx_ib", 4), ("gb200_nvl72_ib", 1))),
    Case("qwen3_235b_h100_mi300x", "unequal pools", "qwen3_235b", (("h100_hgx_ib", 4), ("mi300x_ib", 2))),
    Case("gpt_oss_120b_one_h100_node", "few GPUs", "gpt_oss_120b", (("h100_hgx_ib", 1),)),
    Case("qwen3_30b_two_l40s_nodes", "few GPUs", "qwen3_30b_a3b", (("l40s_pcie", 2),), ttft_ms=4000, tpot_ms=50),
    Case("deepseek_r1_one_b200_node", "few GPUs", "deepseek_r1", (("b200_hgx_ib", 1),)),
    Case("deepseek_r1_5_h200_nodes", "odd node count", "deepseek_r1", (("h200_hgx_ib", 5),)),
    Case("qwen3_235b_3_h100_nodes", "odd node count", "qwen3_235b", (("h100_hgx_ib", 3),)),
    Case("deepseek_r1_3_gb200_racks", "odd node count", "deepseek_r1", (("gb200_nvl72_ib", 3),)),
    Case("kimi_k2_7_b200_nodes", "odd node count", "kimi_k2", (("b200_hgx_ib", 7),)),
    Case(
        "deepseek_r1_gb200_long_answers", "long answers", "deepseek_r1", (("gb200_nvl72_ib", 8),), isl=1024, osl=8192,
    ),
    Case(
        "gpt_oss_120b_b200_long_prompts", "long prompts", "gpt_oss_120b", (("b200_hgx_ib", 4),), isl=32768, osl=1024,
        ttft_ms=5000,
    ),
    Case("glm_5_two_h200_nodes", "bound by HBM", "glm_5", (("h200_hgx_ib", 2),), tpot_ms=50),
    Case("kimi_k2_two_h200_nodes", "bound by HBM", "kimi_k2", (("h200_hgx_ib", 2),), ttft_ms=4000, tpot_ms=60),
)  # fmt: skip


def catalog_cases() -> tuple[str, ...]:
    """The catalog's serving scenarios by name."""
    names = [entry.name for entry in list_catalog("scenario")]
    return tuple(name for name in names if load_scenario(name).workload.kind == "serving")
