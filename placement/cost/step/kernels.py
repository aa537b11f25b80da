"""Measured times of grouped expert products, from the tables of the optional package aiconfigurator-core.

The tables have the milliseconds of an MoE layer's experts on one GPU (no messages) by tokens of all ranks together,
for a model's dimensions, data type, EP and ETP. Where they cover a case they replace the roofline of `BalancedLayer`;
everything else, and every case they don't cover, stays as it is.
"""

from __future__ import annotations

import importlib.util
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from placement.arithmetic import exp, log
from placement.errors import MissingExtraError
from placement.problem.split import Split
from specs.blocks.ffn import Moe
from specs.model_common import DataTypes
from specs.scenario import Scenario

PACKAGE, INSTALL = "aiconfigurator_core", "pip install 'placement[kernels]'"
#: Folders of the tables by the catalog's names of GPUs.
FOLDERS = {
    "B200 SXM 180GB": "b200_sxm",
    "B300 SXM 288GB": "b300_sxm",
    "GB200 186GB": "gb200",
    "H100 SXM 80GB": "h100_sxm",
    "H200 SXM 141GB": "h200_sxm",
}
#: Skew of the routing that the tables were taken with: a power law, as the load of a real model is.
DISTRIBUTION = "power_law_1.01"
DEFAULT_ENGINE = "trtllm"


@dataclass(frozen=True)
class KernelCurve:
    """Seconds of a layer's experts by tokens of all ranks, ascending; `source` names engine, version and table."""

    tokens: tuple[float, ...]
    seconds: tuple[float, ...]
    source: str

    def at(self, tokens: float) -> float:
        """Seconds at `tokens`: interpolated in logarithms, constant below the table, in proportion above it."""
        if tokens <= self.tokens[0]:
            return self.seconds[0]
        if tokens >= self.tokens[-1]:
            return self.seconds[-1] * tokens / self.tokens[-1]
        i = bisect_right(self.tokens, tokens)
        low, high = self.tokens[i - 1], self.tokens[i]
        share = log(tokens / low) / log(high / low)
        return float(exp((1 - share) * log(self.seconds[i - 1]) + share * log(self.seconds[i])))


class KernelTables:
    """The tables of an installed package; curves are remembered."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds one folder for each GPU, as in the package's systems/data."""
        self.folder = folder
        self._known: dict[tuple[str, ...], KernelCurve | None] = {}

    @classmethod
    def installed(cls) -> KernelTables:
        """Those of the package.

        Raises:
            MissingExtraError: it, or what reads its files, is not installed.
        """
        found = importlib.util.find_spec(PACKAGE)
        if found is None or found.origin is None or importlib.util.find_spec("pyarrow") is None:
            raise MissingExtraError(f"measured kernel tables are not installed; {INSTALL}")
        return cls(Path(found.origin).parent / "systems" / "data")

    def curve(self, scenario: Scenario, split: Split, moe: Moe) -> KernelCurve | None:
        """The measured curve of a layer of these experts under a split, or None where no table covers it."""
        folder, kind = FOLDERS.get(scenario.cluster.least_gpu.name), kernel_type(scenario.types)
        if folder is None or kind is None:
            return None
        engine = scenario.engine.measured_as or DEFAULT_ENGINE
        wanted = (
            ("moe_dtype", kind), ("hidden_size", moe.sent_width(scenario.model.hidden)),
            ("inter_size", moe.expert_width), ("topk", moe.top_k),
            ("num_experts", moe.experts), ("moe_tp_size", split.etp), ("moe_ep_size", split.ep),
            ("distribution", DISTRIBUTION),
        )  # fmt: skip
        key = (folder, engine, *(str(value) for _, value in wanted))
        if key not in self._known:
            self._known[key] = self._read(self.folder / folder / "moe" / engine, engine, wanted)
        return self._known[key]

    def _read(self, folder: Path, engine: str, wanted: Sequence[tuple[str, str | int]]) -> KernelCurve | None:
        """Of the newest version that covers the case; versions cover different models."""
        for path in sorted(folder.glob("*/moe_perf.parquet"), reverse=True):
            from pyarrow import parquet

            table = parquet.read_table(
                path, columns=["num_tokens", "latency"], filters=[(name, "==", value) for name, value in wanted]
            )
            best: dict[int, float] = {}
            # Of several kernels an engine takes the fastest.
            for tokens, milliseconds in zip(*(table.column(i).to_pylist() for i in range(2)), strict=True):
                best[tokens] = min(milliseconds, best.get(tokens, math.inf))
            if len(best) > 1:
                order = sorted(best)
                source = f"kernel table, {engine} {path.parent.name}"
                return KernelCurve(tuple(map(float, order)), tuple(best[tokens] * 1e-3 for tokens in order), source)
        return None


def kernel_type(types: DataTypes) -> str | None:
    """The tables' name of experts of a type that are multiplied in another, or None where they have none."""
    named = {
        ("bf16", "bf16"): "bfloat16",
        ("fp8", "fp8"): "fp8_block",
        ("nvfp4", "nvfp4"): "nvfp4",
        ("mxfp4", "bf16"): "w4a16_mxfp4",
        ("mxfp4", "fp8"): "w4a8_mxfp4_mxfp8",
        ("mxfp4", "mxfp8"): "w4a8_mxfp4_mxfp8",
    }
    return named.get((types.experts, types.multiplied))
