"""Small scenarios built in code, so that hand-worked figures don't depend on the catalog."""

from __future__ import annotations

from typing import Any

from specs.blocks.attention import GqaAttention
from specs.blocks.ffn import Moe
from specs.blocks.latent import MlaAttention
from specs.cluster import Cluster, Gpu, Link
from specs.model import Model
from specs.model_common import DataTypes
from specs.model_short import SlidingWindow
from specs.scenario import Scenario
from specs.workload import ServingWorkload, TrainingWorkload

PEAKS = {"bf16": 1000.0, "fp8": 2000.0}


def cluster(nodes: int = 2, per_node: int = 4, hbm_gib: float = 80.0, tray: int = 1, name: str = "small") -> Cluster:
    """Round figures: 4 TB/s of HBM, 400 GB/s fast and 50 GB/s slow links."""
    return Cluster(
        name=name,
        gpu=Gpu(name="round", hbm_gib=hbm_gib, hbm_gb_per_s=4000.0, peak_tflops=PEAKS),
        nodes=nodes,
        gpus_per_node=per_node,
        gpus_per_tray=tray,
        fast=Link(gb_per_s=400.0, latency_us=2.0),
        slow=Link(gb_per_s=50.0, latency_us=5.0),
    )


def small_model(**changes: Any) -> Model:
    """12 layers, 8 experts, top-2."""
    fields: dict[str, Any] = {
        "name": "small",
        "layers": 12,
        "hidden": 1024,
        "vocabulary": 32000,
        "attention": GqaAttention(kind="gqa", query_heads=16, kv_heads=4, head_dim=64),
        "moe": Moe(experts=8, top_k=2, expert_width=2048),
    }
    return Model(**(fields | changes))


def gpt_oss() -> Model:
    """gpt-oss-120b by its published dimensions."""
    return Model(
        name="gpt_oss",
        layers=36,
        hidden=2880,
        vocabulary=201088,
        attention=GqaAttention(
            kind="gqa", query_heads=64, kv_heads=8, head_dim=64, bias=True, output_bias=True, sinks=True
        ),
        moe=Moe(experts=128, top_k=4, expert_width=2880, bias=True, router_bias=True),
        sliding=SlidingWindow(window=128, period=2),
        types=DataTypes(experts="mxfp4"),
    )


def deepseek_v3(types: DataTypes | None = None) -> Model:
    """DeepSeek-V3 by its published dimensions."""
    return Model(
        name="v3",
        layers=61,
        hidden=7168,
        vocabulary=129280,
        attention=MlaAttention(
            kind="mla", heads=128, q_rank=1536, kv_rank=512, rope_dim=64, nope_dim=128, value_dim=128
        ),
        moe=Moe(experts=256, top_k=8, expert_width=2048, shared_experts=1, groups=8, top_groups=4),
        dense_layers=(0, 1, 2),
        dense_width=18432,
        types=types or DataTypes(attention="fp8", dense="fp8", experts="fp8", compute="fp8", dispatch="fp8"),
    )


def deepseek_v2_lite() -> Model:
    """DeepSeek-V2-Lite by its published dimensions."""
    return Model(
        name="v2_lite",
        layers=27,
        hidden=2048,
        vocabulary=102400,
        attention=MlaAttention(kind="mla", heads=16, kv_rank=512, rope_dim=64, nope_dim=128, value_dim=128),
        moe=Moe(experts=64, top_k=6, expert_width=1408, shared_experts=2),
        dense_layers=(0,),
        dense_width=10944,
    )


def serving(**changes: Any) -> ServingWorkload:
    """1,024 tokens in, 256 out, with objectives that nothing misses."""
    fields: dict[str, Any] = {
        "kind": "serving",
        "name": "chat",
        "isl": 1024,
        "osl": 256,
        "ttft_ms": 1e6,
        "tpot_ms": 1e6,
    }
    return ServingWorkload(**(fields | changes))


def training(**changes: Any) -> TrainingWorkload:
    """64 sequences of 1,024 tokens a step."""
    fields: dict[str, Any] = {"kind": "training", "name": "train", "global_batch": 64, "sequence": 1024}
    return TrainingWorkload(**(fields | changes))


def scenario(model: Model | None = None, **changes: Any) -> Scenario:
    """A scenario of the small model on the small cluster unless told otherwise."""
    fields: dict[str, Any] = {
        "name": "test",
        "model": model or small_model(),
        "cluster": cluster(),
        "workload": serving(),
        "reserve_gib": 4.0,
        "degrees": "any",
    }
    return Scenario(**(fields | changes))
