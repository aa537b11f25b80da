"""What a user may set of the search: one record, from a file or from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from specs.documents import parse_yaml, read_text, shown
from specs.validation import validate

Factor = Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
Imbalance = Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False, strict=True)]
Deviations = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False, strict=True)]


class SearchParams(BaseModel):
    """Parameters of the search; those of effort multiply the work that is asked for.

    Attributes:
        node_effort, gpu_effort: steps of the annealing onto nodes and onto GPUs, times the default.
        hot, cold: first and last temperature of each annealing, times the default.
        cap_tries: runs of a layer until one keeps the balance cap.
        drift: standard deviations of drift that a GPU's load counts with when a node's GPUs are evened out, in the
            order in which they are tried: the first that costs little is kept.
        significance: standard errors of what a trace's tokens tell (solvers.experts.noise) that `least_gain` and
            `least_floor` are where they are set to None. By default both are fixed: see docs/notes/held-out.md.
        least_gain: share of a layer's time that the search must gain over the best heuristic, or that one is kept.
        near_time: share by which times of heuristics may differ and count as alike; the most balanced one is taken.
        dispatch_gain: share that solving a placement's dispatch anew must gain, or the search's own is kept.
        least_floor, most_floor: limits of the imbalance (largest GPU load over the mean) that the balance floor asks
            for: no less than the first, and where loads drift no less than windows have, up to the second.
        most_placements: a layer that has no more of them, up to like GPUs and nodes, is enumerated; 0: none is.
        exact_binaries, exact_cells: `auto` tries CP-SAT on layers of at most so many experts times GPUs, and token sets
            times GPUs.
        exact_effort: CP-SAT's work in `auto`, times its own default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_effort: Factor = 1.0
    gpu_effort: Factor = 1.0
    hot: Factor = 1.0
    cold: Factor = 1.0
    cap_tries: Annotated[int, Field(ge=1, le=100, strict=True)] = 4
    drift: Annotated[tuple[Deviations, ...], Field(min_length=1, max_length=20)] = (0.3, 0.15, 0.07, 0.0)
    significance: Factor = 0.75
    least_gain: Share | None = 0.03
    near_time: Share = 0.002
    dispatch_gain: Share = 0.01
    least_floor: Imbalance | None = 1.03
    most_floor: Imbalance = 1.1
    most_placements: Annotated[int, Field(ge=0, le=10**6, strict=True)] = 20_000
    exact_binaries: Annotated[int, Field(ge=0, le=10**6, strict=True)] = 96
    exact_cells: Annotated[int, Field(ge=0, le=10**6, strict=True)] = 400
    exact_effort: Factor = 0.25

    @classmethod
    def load(cls, path: str | Path) -> SearchParams:
        """The parameters in a YAML or JSON file; those it does not name keep their defaults.

        Raises:
            InputError: it can't be read, or a value is not valid.
        """
        source = shown(str(path), 200)
        params: SearchParams = validate(cls, parse_yaml(read_text(Path(path), source), source), source)
        return params

    @property
    def changed(self) -> dict[str, Any]:
        """The values that are not the defaults, by name."""
        return {name: value for name, value in self if value != type(self).model_fields[name].default}


DEFAULTS = SearchParams()
