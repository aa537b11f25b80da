"""GPUs of an expert-parallel group on nodes and trays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.errors import InputError
from placement.problem.arrays import IntArray
from placement.problem.rates import ALIKE as ALIKE
from placement.problem.rates import LayerRates as LayerRates
from placement.problem.rates import PassKind as PassKind


@dataclass(frozen=True)
class Topology:
    """GPUs of one expert-parallel group on their links.

    `os_gpus`: those that an engine takes to be of one OS node, a part of a node; 0: all of a node.
    """

    gpus: int
    gpus_per_node: int
    gpus_per_tray: int = 1
    os_gpus: int = 0

    def __post_init__(self) -> None:
        if min(self.gpus, self.gpus_per_node, self.gpus_per_tray) < 1:
            raise InputError("topology", "gpus", "sizes must be positive", "give sizes of at least 1")
        if self.gpus % self.gpus_per_node:
            raise InputError(
                "topology", "gpus", f"{self.gpus} GPUs do not fill nodes of {self.gpus_per_node}", "use whole nodes"
            )
        if self.gpus_per_node % self.gpus_per_tray:
            raise InputError(
                "topology", "gpus_per_tray", f"{self.gpus_per_tray} does not divide a node", "use whole trays"
            )
        if not self.os_gpus:
            object.__setattr__(self, "os_gpus", self.gpus_per_node)
        if self.os_gpus < 0 or self.gpus_per_node % self.os_gpus:
            raise InputError("topology", "os_gpus", f"{self.os_gpus} does not divide a node", "use whole OS nodes")

    @property
    def nodes(self) -> int:
        return self.gpus // self.gpus_per_node

    @property
    def node_of_gpu(self) -> IntArray:
        return np.arange(self.gpus, dtype=np.int64) // self.gpus_per_node
