"""A cluster of one's own: GPT-OSS-120B on 8 NVL72 racks, over InfiniBand or Ethernet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench.lab.target import LabCase, Outcome, Target, fits_serving, option

if TYPE_CHECKING:
    from specs.scenario import Scenario


@dataclass(frozen=True)
class Options:
    """Extra arguments."""

    fabric: Literal["ib", "ethernet"] = option("ib", "Between racks: 400 Gb/s a GPU, or 200 Gb/s.")


def baseline(case: LabCase[Options]) -> Outcome:
    """Experts by a hash."""
    from bench.lab.custom.study import hashed

    return hashed(case, case.options.fabric)


def optimized(case: LabCase[Options]) -> Outcome:
    """Experts as they serve most."""
    from bench.lab.custom.study import solved

    return solved(case, case.options.fabric)


def fits(scenario: Scenario) -> str:
    """Why the template does not fit a scenario; "" where it does."""
    if reason := fits_serving(scenario):
        return reason
    if scenario.cluster.gpus_per_node != 72:
        return f"a node has {scenario.cluster.gpus_per_node} GPUs: the fabrics are those of NVL72 racks"
    return ""


TARGET = Target(
    "custom_cluster",
    "A template for your own model and cluster: GPT-OSS-120B on 8 x NVL72 over InfiniBand and Ethernet.",
    baseline,
    optimized,
    options=Options,
    fits=fits,
    example="--fabric ethernet",
)
