"""2,000 damaged specs, traces, plans and command lines: no traceback, and one line of error for each refusal."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli.conftest import TINY, Done
from tests.routing.mutations import trace_files

#: Values that a field may wrongly hold. No large number that is valid: a valid scenario is planned.
JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, -1, 3, 10**30, 0.0, -0.5, 0.5, 1e-300, 1e308, float("nan"), float("inf"), "", " ", "8",
    "auto", "fp8", "gqa", "mla", "nowhere.yaml", "/", "..", "a\nb", "\x00", "é" * 300, [], [0], [-1], [[[]]], {},
    {"kind": "gqa"}, {"kind": []}, {1: 2}, {"": ""},
)  # fmt: skip
NAMES = ("experts", "top_k", "kind", "name", "layers", "typo", "", "0", "__class__", "schema")
EXAMPLES = {"spec": 500, "trace": 600, "plan": 600, "arguments": 300}


def relaxed(examples: int) -> settings:
    """Many quick examples; derandomized, so that a run can be repeated."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside plain data; of a list of plain values only the first, the last and one between."""
    found = []
    if isinstance(data, dict):
        keys: list[Any] = list(data)
    elif isinstance(data, list):
        keys = sorted({0, len(data) // 2, len(data) - 1}) if data else []
    else:
        return []
    for key in keys:
        found.append((*path, key))
        found += places(data[key], (*path, key))
    return found


def damaged(draw: st.DrawFn, base: Any) -> Any:
    """`base` with one to three fields removed, replaced, renamed or doubled."""
    data = copy.deepcopy(base)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(data) or [()]))
        if not path:
            break
        place = data
        for step in path[:-1]:
            place = place[step]
        kind = draw(st.sampled_from(["remove", "replace", "rename", "wrap", "scale"]))
        if kind == "remove":
            del place[path[-1]]
        elif kind == "rename" and isinstance(place, dict):
            place[draw(st.sampled_from(NAMES))] = place.pop(path[-1])
        elif kind == "wrap":
            place[path[-1]] = [place[path[-1]]]
        elif kind == "scale" and isinstance(place[path[-1]], int | float):
            place[path[-1]] = place[path[-1]] * draw(st.sampled_from([-1, 2, 0.5]))
        else:
            # A copy: a later change inside it is not to damage the junk itself.
            place[path[-1]] = copy.deepcopy(draw(st.sampled_from(JUNK)))
    return data


def bytes_damaged(draw: st.DrawFn, text: bytes) -> bytes:
    """`text` cut short, or with bytes overwritten or put in."""
    at = draw(st.integers(0, len(text)))
    piece = draw(st.sampled_from([b"", b"\x00", b"\xff", b"{", b"]", b"\n- ", b"&a ", b"1e999", b'"', b": "]))
    if draw(st.booleans()):
        return text[:at] + piece
    return text[:at] + piece + text[at + draw(st.integers(0, 4)) :]


@st.composite
def scenario_files(draw: st.DrawFn) -> bytes:
    """A damaged scenario file."""
    if draw(st.integers(0, 3)) == 0:
        return bytes_damaged(draw, yaml.safe_dump(TINY).encode())
    return yaml.safe_dump(damaged(draw, TINY), allow_unicode=True).encode()


@cache
def sound_plan(path: Path) -> bytes:
    """The bytes of a plan file."""
    return path.read_bytes()


@st.composite
def plan_files(draw: st.DrawFn, sound: bytes) -> bytes:
    """A damaged plan file."""
    if draw(st.integers(0, 3)) == 0:
        return bytes_damaged(draw, sound)
    return json.dumps(damaged(draw, json.loads(sound)), default=str).encode()


def check(done: Done, codes: tuple[int, ...]) -> None:
    """An outcome of the contract: an allowed code, and for an error one line."""
    assert done.code in codes, (done.code, done.out, done.err)
    assert "Traceback" not in done.err
    if done.code:
        assert done.err.startswith(("error: ", "Usage: ")), done.err
        assert done.err.count("\n") == 1 or done.err.startswith("Usage: "), done.err


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file to put damaged bytes in."""
    return tmp_path / "damaged"


@relaxed(EXAMPLES["spec"])
@given(data=st.data())
def test_damaged_specs(call: Callable[..., Done], target: Path, data: st.DataObject) -> None:
    file = target.with_suffix(".yaml")
    file.write_bytes(data.draw(scenario_files()))
    check(call("solve", "--spec", str(file), "--strategy", "greedy", "--json", "--workers", "1"), (0, 2, 3))


@relaxed(EXAMPLES["trace"])
@given(data=st.data())
def test_damaged_traces(call: Callable[..., Done], folder: Path, target: Path, data: st.DataObject) -> None:
    file = target.with_suffix(".npz")
    file.write_bytes(data.draw(trace_files()))
    check(call("evaluate", "--plan", str(folder / "recorded.json"), "--trace", str(file), "--json"), (0, 2))


@relaxed(EXAMPLES["plan"])
@given(data=st.data())
def test_damaged_plans(call: Callable[..., Done], folder: Path, target: Path, data: st.DataObject) -> None:
    file = target.with_suffix(".json")
    sound = folder / data.draw(st.sampled_from(["synthetic.json", "recorded.json"]))
    file.write_bytes(data.draw(plan_files(sound_plan(sound))))
    if data.draw(st.booleans()):
        check(call("verify", str(file)), (0, 2, 6))
    else:
        check(call("evaluate", "--plan", str(file), "--trace", str(folder / "a.npz")), (0, 2))


WORDS = st.sampled_from([
    "--tp", "--ep", "--pp", "--dp", "--batch", "--redundant", "--dispatch", "--message-rule", "--phase", "--objective",
    "--windows", "--seed", "--work", "--time-limit", "--workers", "--holdout", "--no-holdout", "--strategy", "--trace",
    "--spec", "--out", "--json", "0", "1", "2", "4", "8", "-1", "auto", "even", "nearest", "planned", "per_rank",
    "train", "prefill", "load", "hash", "eplb", "nan", "1e400", "", " ", "\x00", "é", "../none", "x" * 300, "--", "-x",
])  # fmt: skip


@relaxed(EXAMPLES["arguments"])
@given(words=st.lists(WORDS, max_size=5))
def test_odd_arguments(
    call: Callable[..., Done], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    check(call("solve", "--spec", str(folder / "tiny.yaml"), "--strategy", "greedy", *words), (0, 2, 3, 4))


def test_there_are_two_thousand_tries() -> None:
    assert sum(EXAMPLES.values()) == 2_000
