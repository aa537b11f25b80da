"""The layouts that engineers configured, as recipes.yaml beside this file states them, and which are nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, Field

from placement.arithmetic import log
from placement.cost.calibration.efficiency import Constants
from placement.cost.step.roles import Role
from solvers.deploy.rivals.layouts import named
from specs.cluster import Cluster
from specs.model import Model
from specs.parameters import count_parameters

#: Models whose parameters differ by at most this factor are of one size class.
SIZE_CLASS = 2.0
#: A fast-link domain of this many GPUs is a rack, one of fewer a box.
RACK = 32


def _layout(name: str) -> str:
    named(name)
    return name


#: Layouts with how many points have each, and the least and most concurrent requests a GPU where that is stated.
Counted = dict[Annotated[str, AfterValidator(_layout)], tuple[int] | tuple[int, float, float]]


class Family(Constants):
    """Models that differ in their weights alone, or nearly so: parameters in billions, and names in the catalog."""

    billions: float
    models: tuple[str, ...]


class Machine(Constants):
    """A GPU that recipes name: its architecture, and GPUs of its fast-link domain."""

    generation: str
    node: int


class Entry(Constants):
    """What was configured for a family on a GPU, by role."""

    family: str
    gpu: str
    prefill: Counted = Field(default_factory=dict)
    decode: Counted = Field(default_factory=dict)
    aggregated: Counted = Field(default_factory=dict)

    def layouts(self, role: Role) -> Counted:
        """The layouts of a role."""
        found: Counted = getattr(self, role)
        return found

    @property
    def points(self) -> int:
        """Configured points: each names one layout of a decode or an aggregated worker."""
        return sum(counted[0] for role in (self.decode, self.aggregated) for counted in role.values())


class Recipes(Constants):
    """The whole file."""

    families: dict[str, Family]
    gpus: dict[str, Machine]
    entries: tuple[Entry, ...]


@lru_cache(maxsize=1)
def load_recipes() -> Recipes:
    """The recipes that ship with the product."""
    return Recipes.shipped("solvers.deploy.rivals", "recipes.yaml")


@dataclass(frozen=True)
class Nearest:
    """The entries nearest to a model and a cluster: of its own family, and of the other families of its size."""

    of_family: tuple[Entry, ...]
    of_size: tuple[Entry, ...]


def nearest_entries(model: Model, cluster: Cluster) -> Nearest:
    """The nearest entries. Of those of the family, and of the others, the ones on the nearest GPU.

    The nearest GPU is the same; else one of the same architecture in as large a fast-link domain (a rack or a box);
    else one in as large a domain; else any. A family is of the model's size if their parameters differ by at most
    SIZE_CLASS; if none is, the nearest counts.
    """
    recipes = load_recipes()
    own = [entry for entry in recipes.entries if model.name in recipes.families[entry.family].models]
    others = [entry for entry in recipes.entries if entry not in own]
    billions = count_parameters(model).total / 1e9

    def size(entry: Entry) -> float:
        ratio = abs(log(recipes.families[entry.family].billions / billions))
        return float(max(ratio, log(SIZE_CLASS)))

    least = min(size(entry) for entry in others)
    alike = [entry for entry in others if size(entry) == least]
    return Nearest(_nearest_gpu(own, cluster), _nearest_gpu(alike, cluster))


def _nearest_gpu(entries: Sequence[Entry], cluster: Cluster) -> tuple[Entry, ...]:
    far = {entry.gpu: _distance(entry.gpu, cluster) for entry in entries}
    return tuple(entry for entry in entries if far[entry.gpu] == min(far.values()))


def _distance(gpu: str, cluster: Cluster) -> int:
    machine = load_recipes().gpus[gpu]
    if cluster.gpu.name.split()[0] == gpu:
        return 0
    if (machine.node >= RACK) != (cluster.gpus_per_node >= RACK):
        return 3
    return 1 if machine.generation == cluster.gpu.generation else 2
