"""A template: your model on your cluster, planned over two fabrics. custom_cluster.yaml says the same as a file.

python docs/examples/custom_cluster.py [ib|ethernet]
"""

import sys

from placement import Budget, load_model, load_workload, plan_scenario
from specs.cluster import Cluster, Gpu, Link
from specs.scenario import Scenario

#: Between nodes, per GPU and direction. efficiency: what nccl-tests reach of it.
FABRICS = {
    "ib": Link(gb_per_s=50, latency_us=3.7, efficiency=0.88),
    "ethernet": Link(gb_per_s=25, latency_us=5.6, efficiency=0.85),
}


def scenario(fabric: str = "ib", nodes: int = 8) -> Scenario:
    """GPT-OSS-120B on GB200 NVL72 racks. Change what is not yours."""
    gpu = Gpu(
        name="GB200 186GB", generation="blackwell", hbm_gib=185.03, hbm_gb_per_s=8000,
        peak_tflops={"bf16": 2500, "fp16": 2500, "fp8": 5000, "mxfp4": 10000},
    )  # fmt: skip
    cluster = Cluster(
        name=f"my_nvl72_{fabric}", gpu=gpu, nodes=nodes, gpus_per_node=72, gpus_per_os_node=4, gpus_per_tray=4,
        fast=Link(gb_per_s=900, latency_us=3.33, efficiency=0.82), slow=FABRICS[fabric],
    )  # fmt: skip
    # load_model takes a name of the catalog, a file, or a Hugging Face folder.
    return Scenario(
        name="custom_cluster", model=load_model("gpt_oss_120b"), cluster=cluster,
        workload=load_workload("serving_4k_1k"),
    )  # fmt: skip


def main(fabric: str = "ib") -> None:
    # A twentieth of the default effort, so that the template is quick.
    plan = plan_scenario(scenario(fabric), budget=Budget(work=0.05))
    print(repr(plan))
    for role in plan.roles:
        print(f"{role.role}: {role.split.instances} x {role.degrees}, {', '.join(role.binds)} binds")
    plan.save("plan.json")


if __name__ == "__main__":
    main(*sys.argv[1:])
