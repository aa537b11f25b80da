"""Every kind of bad input: one line on stderr, nothing on stdout, the right exit code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from placement.errors import InputError
from placement.planning.case import load_scenario
from solvers.split.pins import check_pins
from tests.cli.conftest import TINY, Done, finish, process

Edit = Callable[[dict[str, Any]], None]


def one_line(done: Done, code: int = 2) -> str:
    """The error line, after checking that there is just that."""
    assert done.code == code, (done.out, done.err)
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    return done.err


def edited(tiny: dict[str, Any], path: Path, **changes: Any) -> str:
    """A scenario file with fields changed; `model__layers=3` reaches into a part."""
    import copy

    data = copy.deepcopy(tiny)
    for name, value in changes.items():
        *parents, last = name.split("__")
        place = data
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(yaml.safe_dump(data))
    return str(path)


def test_unknown_spec_names_the_nearest(call: Callable[..., Done]) -> None:
    line = one_line(call("solve", "--spec", "gpt_oss_120b_gb200_inf"))
    assert "gpt_oss_120b_gb200_ib" in line


@pytest.mark.parametrize("command", ["solve", "compare"])
def test_unknown_spec_as_a_process(command: str, folder: Path) -> None:
    done = finish(process(["-m", f"placement.{command}", "--spec", "deepseek_r1_gb300_ib"], folder))
    assert "deepseek_r1_gb200_ib" in one_line(done)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__layers": "three"}, ("model.layers", "whole number")),
        ({"model__layres": 3}, ("layres", "layers")),
        ({"model__hidden": -64}, ("model.hidden", "at least 1")),
        ({"model__moe__experts": 0}, ("experts", "at least 1")),
        ({"model__moe__experts": 10**12}, ("experts", "at most")),
        ({"cluster__nodes": 10**6}, ("nodes", "at most")),
        ({"cluster__gpu__hbm_gib": 0}, ("hbm_gib",)),
        ({"workload__isl": 1.5}, ("isl", "whole number")),
        ({"pins": {"ep": 3}}, ("ep",)),
        ({"model__moe__top_k": 9}, ("top_k",)),
        ({"decode_pins": {"cp": 2}}, ("decode_pins.cp", "pin prefill_pins.cp")),
        ({"prefill_pins": {"batch": 2}}, ("prefill_pins.batch", "pin decode_pins.batch")),
        ({"model": "no_such_model"}, ("model", "no_such_model")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_bad_scenario_field(
    call: Callable[..., Done], tiny: dict[str, Any], tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    line = one_line(call("solve", "--spec", edited(tiny, tmp_path / "s.yaml", **changes)))
    for word in words:
        assert word in line


@pytest.mark.parametrize("text", ["model: [", "a: b: c", "", "- 1", "\t", "model: !!python/object:os.system x"])
def test_malformed_yaml(call: Callable[..., Done], tmp_path: Path, text: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    assert "s.yaml" in one_line(call("solve", "--spec", str(tmp_path / "s.yaml")))


def _trace(path: Path, experts: int = 8, layers: int = 2, top_k: int = 2, tokens: int = 40) -> str:
    rng = np.random.default_rng(1)
    ids = np.argsort(rng.random((layers, tokens, experts)), axis=2)[:, :, :top_k].astype(np.uint8)
    np.savez(path, topk_ids=ids)
    return str(path)


def _bad_trace(kind: str, path: Path) -> str:
    file = path / "t.npz"
    if kind == "layers":
        return _trace(file, layers=3)
    if kind == "experts":
        return _trace(file, experts=16)
    if kind == "top_k":
        return _trace(file, top_k=3)
    if kind == "negative":
        np.savez(file, topk_ids=np.full((2, 4, 2), -1))
    elif kind == "empty":
        np.savez(file, topk_ids=np.zeros((2, 0, 2), dtype=np.uint8))
    elif kind == "truncated":
        _trace(file)
        file.write_bytes(file.read_bytes()[:-40])
    elif kind == "no bytes":
        file.write_bytes(b"")
    elif kind == "text":
        file.write_text("topk_ids")
    elif kind == "sums":
        np.savez(file, counts=np.full((2, 8), 2.0**53))
    elif kind == "contradicted":
        np.savez(file, counts=np.ones((2, 8)), meta=np.array('{"top_k": 4}'))
    elif kind == "sparse":
        header = str({"descr": "|u1", "fortran_order": False, "shape": (2**28, 2, 8)}).ljust(117).encode() + b"\n"
        file.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        os.truncate(file, 4 * 2**30)
    elif kind == "missing":
        return str(path / "none.npz")
    elif kind == "folder":
        return str(path)
    return str(file)


@pytest.mark.parametrize(
    "kind",
    [
        "layers", "experts", "top_k", "negative", "empty", "truncated", "no bytes", "text", "sums", "contradicted",
        "sparse", "missing", "folder",
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["solve", "evaluate", "verify"])
def test_bad_trace(call: Callable[..., Done], folder: Path, tmp_path: Path, kind: str, command: str) -> None:
    trace = _bad_trace(kind, tmp_path)
    args = {
        "solve": ("--spec", str(folder / "tiny.yaml")),
        "evaluate": ("--plan", str(folder / "recorded.json")),
        "verify": (str(folder / "recorded.json"),),
    }[command]
    line = one_line(call(command, *args, "--trace", trace))
    assert Path(trace).name in line
    if kind in ("layers", "experts", "top_k"):
        assert "tiny_model" in line or "experts" in line


def test_unwritable_output_is_found_before_solving(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    spec = str(folder / "tiny.yaml")
    for out in (tmp_path / "no" / "plan.json", tmp_path, Path(os.devnull), ""):
        assert "--out" in one_line(call("solve", "--spec", spec, "--out", str(out)))
    assert Path(os.devnull).is_char_device()


def test_a_loop_of_links_is_no_file(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    spec, plan, trace = ("--spec", str(folder / "tiny.yaml")), ("--plan", str(folder / "recorded.json")), str(loop)
    for args in (
        ("solve", *spec, "--out", str(loop)), ("deploy", *spec, "--out", str(loop)),
        ("migrate", *plan, "--trace", str(folder / "a.npz"), "--max-moves", "1", "--out", str(loop)),
        ("solve", "--spec", str(loop)), ("solve", *spec, "--trace", trace), ("verify", str(loop)),
        ("specs", "show", str(loop)), ("evaluate", *plan, "--trace", trace), ("migrate", *plan, "--trace", trace),
    ):  # fmt: skip
        assert "loop.yaml" in one_line(call(*args))
    assert loop.is_symlink()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "--out" in one_line(call("solve", "--spec", str(folder / "tiny.yaml"), "--out", str(tmp_path / "p.json")))


@pytest.mark.parametrize(
    "args",
    [
        ("--tp", "0"), ("--tp", "x"), ("--redundant", "-1"), ("--redundant", "some"), ("--work", "nan"),
        ("--time-limit", "-3"), ("--seed", "-1"), ("--workers", "-1"), ("--strategy", "eblp"), ("--phase", "train"),
        ("--phase", "x"), ("--tp", "5"), ("--ep", "3"), ("--nothing",), ("--windows", "0"), ("--redundant", "3"),
        ("--redundant", "1000"), ("extra",),
    ],
    ids=" ".join,
)  # fmt: skip
def test_bad_option(call: Callable[..., Done], folder: Path, args: tuple[str, ...]) -> None:
    line = one_line(call("solve", "--spec", str(folder / "tiny.yaml"), *args))
    if args[0] == "--strategy":
        assert "eplb" in line


def test_counts_cannot_be_held_out_or_mixed(call: Callable[..., Done], folder: Path) -> None:
    spec, counts, trace = (str(folder / name) for name in ("tiny.yaml", "counts.npz", "a.npz"))
    assert "leave --holdout out" in one_line(call("solve", "--spec", spec, "--trace", counts, "--holdout"))
    assert "mixed" in one_line(call("solve", "--spec", spec, "--trace", counts, "--trace", trace))
    plan = str(folder / "recorded.json")
    assert "--part" in one_line(call("evaluate", "--plan", plan, "--trace", counts, "--part", "first-half"))


def test_too_little_hbm_names_the_line_and_the_cluster(
    call: Callable[..., Done], tiny: dict[str, Any], tmp_path: Path
) -> None:
    spec = edited(tiny, tmp_path / "s.yaml", reserve_gib=7.9999, pins={})
    line = one_line(call("solve", "--spec", spec), code=3)
    assert "HBM" in line
    assert "GB" in line


def test_too_little_hbm_of_a_catalog_scenario(call: Callable[..., Done]) -> None:
    done = call("solve", "--spec", "deepseek_r1_h100_ib", "--ep", "1", "--dp", "1", "--pp", "1")
    # On a busy machine progress is told first.
    line = one_line(Done(done.code, done.out, done.err.splitlines(keepends=True)[-1]), code=3)
    assert "expert weights" in line


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "JSON"), ("{", "JSON"), ("[]", ""), ("{}", "schema"), ('{"schema": "placement.plan/3"}', "schema"),
        ('{"schema": "placement.plan/2"}', "missing"), ('{"schema": "placement.plan/1"}', "missing"),
        ("[" * 100_000, "nested"), ('{"a": NaN}', "NaN"),
        ('{"a": 1, "a": 2}', "twice"), ("1" * 5_000, ""), ("\ud800", "UTF-8"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["verify", "evaluate"])
def test_bad_plan(call: Callable[..., Done], folder: Path, tmp_path: Path, command: str, text: str, word: str) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    args = (str(path),) if command == "verify" else ("--plan", str(path), "--trace", str(folder / "a.npz"))
    assert word in one_line(call(command, *args))


def test_missing_plan(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path, "\0"):
        one_line(call("verify", str(path)))
    one_line(call("evaluate", "--plan", str(folder / "recorded.json")))  # no trace


def test_names_tiny_is_not_shared(tiny: dict[str, Any]) -> None:
    tiny["name"] = "changed"
    assert TINY["name"] == "tiny"


def test_a_name_too_long_for_a_file_is_told(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    long, plan = str(tmp_path / ("x" * 300)), str(folder / "recorded.json")
    for args in (
        ("export", "--plan", plan, "--to", "deepseek", "--out", long),
        ("trace", "record", "--model", long, "--text", long, "--out", str(tmp_path / "t.npz")),
        ("solve", "--spec", long), ("evaluate", plan, "--trace", long), ("trace", "convert", long, "--out", "t.npz"),
    ):  # fmt: skip
        assert "x" * 100 in one_line(call(*args))


def test_names_of_the_hub_find_their_names(call: Callable[..., Done]) -> None:
    told = one_line(call("solve", "--spec", "openai/gpt-oss-120b"))
    assert "no such file; did you mean gpt_oss_120b_gb200_ethernet or gpt_oss_120b_gb200_ib?" in told
    assert "did you mean gpt_oss_120b?" in one_line(call("solve", "--model", "openai/gpt-oss-120b"))
    assert "did you mean h100_4x4_ib or" in one_line(call("solve", "--cluster", "h100"))
    assert "no such file; check the path" in one_line(call("solve", "--spec", "here/gpt_oss_120b_gb200_ib.yaml"))


def test_pins_of_a_role_are_named_with_it(call: Callable[..., Done], folder: Path) -> None:
    args = (
        "solve",
        "--spec",
        str(folder / "tiny.yaml"),
        "--nodes",
        "4",
        "--mode",
        "disaggregated",
        "--strategy",
        "eplb",
    )
    assert "tiny: decode_tp x dp x pp: 12 GPUs" in one_line(call(*args, "--decode-tp", "3"))
    assert "tiny: decode_ep: ep 3 does not divide" in one_line(call(*args, "--decode-ep", "3"))
    assert "tiny: ep: " in one_line(call(*args, "--decode-tp", "1", "--ep", "3"))
    scenario = load_scenario(folder / "tiny.yaml")
    with pytest.raises(InputError, match=r"tiny: redundant: .* ep 4, in decode instances; use"):
        check_pins(scenario, scenario.pins, 3, "decode", {"ep"})


def test_more_windows_than_sequences_are_refused(call: Callable[..., Done], folder: Path) -> None:
    trace, plan = ("--trace", str(folder / "a.npz")), str(folder / "recorded.json")
    spec = ("--spec", str(folder / "tiny.yaml"), "--strategy", "eplb")
    assert "--windows: 3 windows of 2 sequences of a" in one_line(call("solve", *spec, *trace, "--windows", "3"))
    assert "--windows: 5 windows of 4 sequences" in one_line(call("evaluate", plan, *trace, "--windows", "5"))
    counts = ("--loads", str(folder / "counts.npz"))
    assert "bring 2 windows of their own" in one_line(call("evaluate", plan, *counts, "--windows", "2"))


def test_quiet_and_verbose_exclude_each_other(call: Callable[..., Done], folder: Path) -> None:
    for flags in (("-q", "-v"), ("-v", "-q")):
        done = call("solve", "--spec", str(folder / "tiny.yaml"), *flags)
        assert "-q and -v exclude each other" in one_line(done)


def test_a_rate_beyond_the_cluster_is_told_in_both_units(call: Callable[..., Done], folder: Path) -> None:
    done = call("deploy", "--spec", str(folder / "tiny.yaml"), "--target-rate", "1e15")
    assert done.code == 3
    assert "--target-rate is 3.125e+13 requests/s of 32 tokens: no deployment serves" in done.err
    assert "give at most 1e15" in one_line(call("solve", "--target-rate", "1e16"))


def test_an_empty_word_is_told_by_its_option(call: Callable[..., Done], folder: Path) -> None:
    plan = str(folder / "recorded.json")
    for name, args in (
        ("PLAN", ("verify", "")),
        ("--front", ("report", plan, "--front", "")),
        ("--plan", ("migrate", "--plan", " ")),
        ("--map", ("trace", "convert", plan, "--map", "", "--out", "t.npz")),
        ("--current", ("compare", "--spec", str(folder / "tiny.yaml"), "--current", "")),
        ("FILE", ("trace", "stats", "")),
        ("--trace", ("solve", "--spec", str(folder / "tiny.yaml"), "--trace", "")),
    ):
        assert one_line(call(*args)) == f"error: {name}: is empty; give it a value, or leave it out\n"
