"""What vLLM's recipes ask for, as recipes.yaml beside this file states it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field

from placement.cost.calibration.efficiency import Constants


@dataclass(frozen=True)
class Asked:
    """GPUs that a recipe asks for; `stated` in so many words, or else as many as hold its vram_minimum_gb."""

    gpus: int
    stated: bool


class Checkpoint(Constants):
    """A model in one precision, and its recipe.

    Attributes:
        model: of the catalog. weights: precision of the experts. types: what differs from the catalog's model.
        recipe: path@commit in the recipes' repository. vram_gb: its vram_minimum_gb. gpus: counts that it states, by
            cluster. unsupported: clusters whose GPUs it excludes. why: of each count that differs, by cluster.
    """

    model: str
    weights: str
    types: dict[str, Any] = Field(default_factory=dict)
    recipe: str
    vram_gb: float | None = None
    gpus: dict[str, int] = Field(default_factory=dict)
    unsupported: tuple[str, ...] = ()
    why: dict[str, str] = Field(default_factory=dict)


class Recipes(Constants):
    """The whole file; gpu_gb: marketed memory of a GPU by cluster; only: clusters that a precision is offered on."""

    gpu_gb: dict[str, float]
    only: dict[str, tuple[str, ...]]
    checkpoints: tuple[Checkpoint, ...]

    def asked(self, checkpoint: Checkpoint, cluster: str) -> Asked | None:
        """What a checkpoint's recipe asks for on a cluster's GPUs; None where it says nothing."""
        if cluster in checkpoint.gpus:
            return Asked(checkpoint.gpus[cluster], True)
        offered = cluster in self.only.get(checkpoint.weights, (cluster,)) and cluster not in checkpoint.unsupported
        if checkpoint.vram_gb is None or cluster not in self.gpu_gb or not offered:
            return None
        gpus = -int(-checkpoint.vram_gb // self.gpu_gb[cluster])
        return Asked(1 << (gpus - 1).bit_length() if gpus <= 8 else -(-gpus // 8) * 8, False)


def load_recipes() -> Recipes:
    """The recipes that ship with the benchmark."""
    return Recipes.shipped("bench.fits", "recipes.yaml")
