"""SearchParams: read from a file, heard by the search, and in the plan where they are not the defaults."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from placement.errors import InputError
from placement.planning.solve import plan_scenario
from placement.records.plan import Plan, plan_from_json, plan_json
from solvers.experts.floor import balance_floor
from solvers.experts.search.solver import SearchSolver
from solvers.parallel import carry
from solvers.params import DEFAULTS, SearchParams
from solvers.registry import get_solver
from solvers.stop import Stop
from specs.scenario import Scenario
from tests.cli.conftest import TINY
from tests.solvers.problems import random_problem


def test_a_file_sets_what_it_names(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("least_gain: 0.05\ndrift: [0.5, 0]\n")
    params = SearchParams.load(file)
    assert params == SearchParams(least_gain=0.05, drift=(0.5, 0.0))
    assert params.changed == {"least_gain": 0.05, "drift": (0.5, 0.0)}
    file.write_text(json.dumps({"hot": 2}))
    assert SearchParams.load(file) == SearchParams(hot=2.0)
    assert DEFAULTS.changed == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("least_gian: 0.1", "least_gian: is not a known field; did you mean least_gain"),
        ("cap_tries: 0", "cap_tries: is 0; write at least 1"),
        ("node_effort: .nan", "node_effort"),
        ("drift: []", "drift"),
        ("[1]", "mapping"),
    ],
)
def test_a_wrong_file_is_told_in_a_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=words) as told:
        SearchParams.load(tmp_path / "params.yaml")
    assert "\n" not in str(told.value)
    assert "params.yaml" in str(told.value)


def test_the_search_hears_them() -> None:
    """Each by what only it changes."""
    problem = random_problem(1, experts=32, gpus=8, slots_per_gpu=5)
    plain = SearchSolver().solve(problem, Stop(0.1), 0)

    def ran(**changes: object) -> tuple[int, bytes]:
        found = SearchSolver().solve(problem, Stop(0.1, params=SearchParams(**changes)), 0)  # type: ignore[arg-type]
        assert found.slots is not None
        return found.iterations, found.slots.tobytes()

    assert plain.slots is not None
    assert ran() == (plain.iterations, plain.slots.tobytes())
    assert ran(node_effort=2.0)[0] > 1.5 * plain.iterations
    assert plain.iterations < ran(gpu_effort=2.0)[0] < 1.5 * plain.iterations
    assert ran(hot=20.0)[1] != plain.slots.tobytes()
    tight = balance_floor(problem, SearchParams(least_floor=1.0)).rules.max_load
    loose = balance_floor(problem, SearchParams(least_floor=1.5)).rules.max_load
    assert tight is not None
    assert loose == pytest.approx(1.5)
    assert tight < loose
    # Nothing gains 99%: the best heuristic stays. A small layer goes to CP-SAT, unless that is told otherwise.
    kept = get_solver("auto").solve(problem, Stop(0.1, params=SearchParams(least_gain=0.99)), 0)
    assert kept.iterations > 0
    assert not np.array_equal(kept.slots, get_solver("auto").solve(problem, Stop(0.1), 0).slots)
    small = random_problem(1, experts=8, gpus=4, slots_per_gpu=2, k=2, tokens=10)
    assert get_solver("auto").solve(small, Stop(0.1), 0).bound > 0
    told = SearchParams(exact_cells=0, most_placements=0)
    assert get_solver("auto").solve(small, Stop(0.1, params=told), 0).bound == 0
    assert carry(Stop(1.0, None, SearchParams(hot=2.0))).here().params.hot == 2.0
    assert Stop(1.0, 1e12, SearchParams(hot=2.0)).scaled(2.0).share_of_time(0.5).params.hot == 2.0


def test_a_plan_holds_those_that_differ() -> None:
    scenario = Scenario.model_validate(TINY)

    def plan(params: SearchParams | None) -> Plan:
        return plan_scenario(scenario, strategy="search", params=params, backend="sequential")

    plain, changed = plan(None), plan(SearchParams(cap_tries=2, drift=(0.1, 0.0)))
    assert plan_json(plan(SearchParams())) == plan_json(plain)
    assert "params" not in json.loads(plan_json(plain))["provenance"]
    assert json.loads(plan_json(changed))["provenance"]["params"] == {"cap_tries": 2, "drift": [0.1, 0.0]}
    assert plan_from_json(plan_json(changed), "") == changed
