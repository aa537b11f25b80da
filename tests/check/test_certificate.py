"""Bounds and their witnesses: honest ones are checked, tampered ones never are, and hostile files are one line."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from placement.check.bounds import least_objective
from placement.check.failure import FailureError
from placement.check.plan import cases_of
from placement.check.reach import WitnessError
from placement.check.role import CHECKS
from placement.errors import InputError
from placement.problem.layer import LayerProblem
from placement.problem.topology import Topology
from placement.records.plan import Plan, load_plan, plan_from_json, plan_json
from placement.records.witness import LayerWitness, RoleWitness, read_witness, record_of, witness_bytes
from solvers.bounds import layer_bound
from tests.cli.conftest import Done
from tests.cli.conftest import call as call
from tests.layers import layer_problem
from tests.solvers.problems import RATES, random_problem

#: What a plan's bounds are held against is rounded down by 1e-9, a plan's own by 1e-8.
NEAR = 1e-8


@pytest.mark.parametrize("dispatch", ["even", "nearest", "planned"])
@pytest.mark.parametrize("objective", ["time", "load", "traffic"])
def test_bounds_are_proven_again_by_their_witness(dispatch: str, objective: str) -> None:
    """And by no less than half of what they are above loads and counts is the witness's."""
    for seed in range(4):
        problem = random_problem(seed, 12, 4, 1 + seed % 2, 5, k=3, tokens=400, dispatch=dispatch, objective=objective)
        bound = layer_bound(problem)
        proven = least_objective(problem, bound.witness)
        assert proven >= bound.value * (1 - NEAR)
        assert proven <= bound.value * (1 + 1e-6)
        if bound.witness is not None:
            assert least_objective(problem) < bound.value * (1 - NEAR)


def test_bounds_in_parts_are_proven_again(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(1, 16, 4, 1, 5, k=3, tokens=3000, objective="traffic")
    assert problem.data.sets is not None
    monkeypatch.setattr("solvers.bounds.consensus.MOST_IDS", problem.data.sets.ids.size // 3)
    bound = layer_bound(problem)
    assert bound.witness is not None
    assert len(bound.witness.reach) == 3
    assert least_objective(problem, bound.witness) >= bound.value * (1 - NEAR)
    fewer = LayerWitness(bound.witness.reach[1:])
    assert least_objective(problem) < least_objective(problem, fewer) < bound.value * (1 - NEAR)
    with pytest.raises(WitnessError, match="one cut"):
        least_objective(problem, LayerWitness(bound.witness.reach[:1] * 2))


@pytest.mark.parametrize(("width", "experts"), [(2, 8), (2, 9), (3, 13), (4, 18)])
def test_packings_are_excluded_again(width: int, experts: int) -> None:
    found = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        load = np.exp(rng.normal(0, 0.8, (1, experts)))
        problem = layer_problem(load, Topology(5, 5), width, RATES, objective="load")
        bound = layer_bound(problem)
        assert least_objective(problem, bound.witness) >= bound.value * (1 - NEAR)
        found += bound.witness is not None
    assert found >= (2 if width < 4 else 1)


def edited(plan: Plan, edit: Callable[[dict[str, Any]], None], content: bytes | None = None) -> Plan:
    """The plan with its file's data edited, beside its witness file or another."""
    data = json.loads(plan_json(plan))
    edit(data)
    made, kept = plan_from_json(json.dumps(data), "p.json"), plan.witness_bytes() if content is None else content
    return made.model_copy(update={"witness": made.with_witness(kept).witness}).with_witness(kept)


def accepted(plan: Plan, problems: tuple[LayerProblem, ...]) -> bool:
    """Whether verify finds nothing wrong with the certificate, and every bound checked; `problems`: of the layers."""
    (case,) = cases_of(plan, ())
    case.__dict__["problems"] = problems  # posed once for all
    made = {name: check for name, check, _ in CHECKS}
    try:
        made["certificate"](case)
        made["bounds"](case)
    except FailureError:
        return False
    return case.witnesses.roles is not None and all(proof.kind == "checked" for proof in case.proofs)


def _told(data: dict[str, Any]) -> None:
    """Gaps, statuses and means as the objectives and bounds give them."""
    role = data["roles"][0]
    for layer in role["layers"]:
        layer["gap"] = layer["objective"] / layer["bound"] - 1 if layer["bound"] > 0 else None
        layer["status"] = "optimal" if layer["objective"] <= layer["bound"] * (1 + 1e-6) else "feasible"
    objective, bound = (float(np.mean([layer[name] for layer in role["layers"]])) for name in ("objective", "bound"))
    optimal = all(layer["status"] == "optimal" for layer in role["layers"])
    role["certificate"] |= {
        "objective": objective * 1e6, "bound": bound * 1e6, "gap": objective / bound - 1 if bound > 0 else None,
        "status": "optimal" if optimal else "feasible",
    }  # fmt: skip


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content)) as file:
        return {name: file[name] for name in file.files}


def _packed(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def tampered(plan: Plan, rng: np.random.Generator) -> Plan:
    """The plan with its certificate or its witness tampered with, in one of many ways."""
    content = plan.witness_bytes()
    assert content is not None
    way, at = int(rng.integers(8)), int(rng.integers(len(plan.role().layers)))
    factor = float(1 + rng.choice([-1, 1]) * np.exp(rng.uniform(-13, -0.5)))

    def bound(data: dict[str, Any]) -> None:
        layer = data["roles"][0]["layers"][at]
        layer["bound"] = min(layer["objective"], layer["bound"] * factor)

    def consistent(data: dict[str, Any]) -> None:
        bound(data)
        _told(data)

    def single(data: dict[str, Any]) -> None:
        where = data["roles"][0]["layers"][at] if rng.random() < 0.5 else data["roles"][0]["certificate"]
        name = str(rng.choice(["gap", "status"]))
        where[name] = where["gap"] * factor if name == "gap" else "optimal"

    if way == 0:
        return edited(plan, bound)
    if way == 1:
        return edited(plan, consistent)
    if way == 2:
        return edited(plan, single)
    cut, flipped = int(rng.integers(len(content))), bytearray(content)
    flipped[cut] ^= 1 << int(rng.integers(8))
    if way == 3:
        return _beside(plan, bytes(flipped))
    if way == 4:
        return _beside(plan, content[:cut])
    arrays = _arrays(content)
    if way == 5:
        # Other prices, and a raised bound that they would have to prove, all told as it should be.
        name = str(rng.choice([name for name in arrays if name.endswith(("tokens", "tables", "value", "rows"))]))
        flat = arrays[name].reshape(-1)
        flat[int(rng.integers(len(flat)))] = flat[int(rng.integers(len(flat)))] + 1
    if way == 6:
        # The witness of another layer.
        names = sorted(name for name in arrays if name.startswith("0/0/"))
        other = [name.replace("0/0/", "0/1/", 1) for name in names]
        for one, two in zip(names, other, strict=True):
            if two in arrays:
                arrays[one], arrays[two] = arrays[two], arrays[one]
    role = plan.role()
    raised = [min(layer.objective, layer.bound * (1 + abs(factor - 1) + 2e-6)) for layer in role.layers]
    arrays["0/bounds"] = np.array(raised)

    def up(data: dict[str, Any]) -> None:
        for layer, value in zip(data["roles"][0]["layers"], raised, strict=True):
            layer["bound"] = value
        _told(data)

    return edited(plan, up, _packed(arrays))


def _beside(plan: Plan, content: bytes) -> Plan:
    """The plan beside another file than it names."""
    return plan.with_witness(content).model_copy(update={"witness": plan.witness})


def test_tampered_certificates_are_never_accepted(folder: Path) -> None:
    _none_accepted(load_plan(folder / "synthetic.json"), 200)


@pytest.mark.slow
def test_ten_thousand_tampered_certificates(folder: Path) -> None:
    _none_accepted(load_plan(folder / "synthetic.json"), 10_000)


def _none_accepted(plan: Plan, times: int) -> None:
    (case,) = cases_of(plan, ())
    problems = case.problems
    assert accepted(plan, problems)
    rng = np.random.default_rng(0)
    for i in range(times):
        found = tampered(plan, rng)
        assert not accepted(found, problems), i


def test_a_missing_witness_is_told(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    plan = load_plan(folder / "synthetic.json")
    (tmp_path / "p.json").write_text(plan_json(plan))
    done = call("verify", str(tmp_path / "p.json"))
    assert done.code == 0
    assert "missing: *.witness-" in done.out
    assert "2 of 2 bounds" in done.out


@pytest.mark.parametrize("stem", ["n" * 250, "é" * 125], ids=["ascii", "two bytes each"])
def test_a_long_name_of_a_plan_is_cut_for_its_witness(stem: str, folder: Path, tmp_path: Path) -> None:
    plan = load_plan(folder / "recorded.json")
    assert plan.witness is not None
    plan.save(tmp_path / f"{stem}.json")
    assert len(list(tmp_path.iterdir())) == 2
    again = load_plan(tmp_path / f"{stem}.json")
    assert again.witness_bytes() == plan.witness_bytes()


def test_a_witness_goes_where_its_plan_goes(folder: Path, tmp_path: Path) -> None:
    plan = load_plan(folder / "synthetic.json")
    assert plan.witness is not None
    plan.save(tmp_path / "one.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.json", f"one{plan.witness.suffix}"]
    (tmp_path / "one.json").rename(tmp_path / "two.json")
    again = load_plan(tmp_path / "two.json")
    assert again == plan
    assert again.witness_bytes() == plan.witness_bytes()


def test_a_plan_that_cannot_be_written_leaves_no_witness(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out.json").mkdir()
    with pytest.raises(InputError, match="folder"):
        load_plan(folder / "synthetic.json").save(tmp_path / "out.json")
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def _npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def _zip(name: str, data: bytes, how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        archive.writestr(name, data)
    return file.getvalue()


HOSTILE = {
    "huge array": _zip("0/bounds.npy", _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (10**15,)}\n")),
    "huge literal": _zip(
        "0/bounds.npy", _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}\n")
    ),
    "pickle": _zip("0/bounds.npy", _npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n") + b"cos\nsystem\n"),
    "bomb": _zip("0/bounds.npy", bytes(10**7), zipfile.ZIP_DEFLATED),
    "no zip": b"no zip at all",
    "empty": b"",
    "nothing in it": _zip("other.npy", b""),
    "not finite": _packed({"0/bounds": np.array([np.nan, 1.0])}),
    "ragged": _packed({"0/bounds": np.ones(2), "0/0/reach0/sizes": np.array([1, 5]), "0/0/reach0/units": np.ones(2),
                       "0/0/reach0/tables": np.zeros(1, np.int16), "0/0/reach0/rows": np.ones(3)}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_one_line(name: str, call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    plan, content = load_plan(folder / "synthetic.json"), HOSTILE[name]
    plan.with_witness(content).save(tmp_path / "p.json")
    done = call("verify", str(tmp_path / "p.json"))
    assert done.code == 6
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) == 1
    assert "witness" in done.err


def test_files_are_read_as_they_were_written(folder: Path) -> None:
    content = load_plan(folder / "synthetic.json").witness_bytes()
    assert content is not None
    roles = read_witness(content, "w.npz")
    assert witness_bytes(roles) == content
    assert record_of(content).sha256 == hashlib.sha256(content).hexdigest()
    assert witness_bytes([RoleWitness(np.ones(2), (None, None))]) is None
