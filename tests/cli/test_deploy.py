"""`placement deploy` as users run it: a screen, a plan that other commands read, a front, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from placement.records.plan import plan_from_json
from tests.cli.conftest import TINY, Done

SPEC = "mixtral_8x7b_h100_ib"
Call = Callable[..., Done]


def record(call: Call, *args: str) -> dict[str, Any]:
    done = call("deploy", "--spec", SPEC, *args, "--json", "--balanced", "--set", "routing.tokens=512")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_a_deployment_adds_up_and_verifies(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "deployment.json"
    found = record(call, "--out", str(out))
    assert json.loads(out.read_text()) == found
    plan = plan_from_json(out.read_text(), "out")
    assert plan.gpus <= 32
    assert sum(group.nodes for group in plan.nodes) <= 4
    assert all(sum(held.gpus for held in group.holds) <= 8 for group in plan.nodes)
    assert plan.choice is not None
    dropped = sum(each.count for each in plan.choice.dropped)
    assert dropped + plan.choice.kept == plan.choice.considered
    assert plan.choice.idle_gpus == 32 - plan.gpus
    assert call("verify", str(out)).code == 0


def test_modes_are_ordered_and_kinds_are_few(call: Call) -> None:
    rates = {}
    for mode in ("aggregated", "disaggregated", "auto"):
        plan = record(call, "--mode", mode)
        rates[mode] = plan["choice"]["priced_tokens_per_s"]
        assert len(plan["roles"]) <= 2
        assert len({role["role"] for role in plan["roles"]}) == len(plan["roles"])
        assert mode == "auto" or plan["mode"] == mode
    assert rates["auto"] >= max(rates["aggregated"], rates["disaggregated"]) * (1 - 1e-9)


def test_more_kinds_serve_no_less_and_their_price_is_told(call: Call) -> None:
    few, many = record(call), record(call, "--max-kinds", "8")
    gain = many["choice"]["priced_tokens_per_s"] / few["choice"]["priced_tokens_per_s"] - 1
    assert gain >= -1e-9
    assert few["choice"]["without_max_kinds"] == pytest.approx(gain, abs=1e-6)


def test_a_target_takes_fewer_gpus(call: Call) -> None:
    whole = record(call)
    target = whole["choice"]["priced_tokens_per_s"] / 4
    half = record(call, "--target-rate", str(target))
    used = [sum(r["split"]["instances"] * r["split"]["dp"] * r["split"]["tp"] * r["split"]["pp"] for r in p["roles"])
            for p in (half, whole)]  # fmt: skip
    assert used[0] < used[1]
    assert half["choice"]["priced_tokens_per_s"] >= target * (1 - 1e-6)
    assert half["choice"]["goal"] == "gpus"


def test_solve_takes_the_instances_of_a_deployment_and_gives_the_same_figures(
    call: Call, folder: Path, tmp_path: Path
) -> None:
    spec, out = str(folder / "tiny.yaml"), str(tmp_path / "d.json")
    assert call("deploy", "--spec", spec, "--out", out).code == 0
    deployed = json.loads(Path(out).read_text())
    again = json.loads(call("solve", "--deployment", out, "--strategy", "eplb", "--json").out)
    figures = ("split", "predicted", "strategies", "memory", "binds")
    assert all(again["roles"][0][name] == deployed["roles"][0][name] for name in figures)
    alone = json.loads(call("solve", "--spec", spec, "--strategy", "eplb", "--json").out)
    assert all(alone["roles"][0][name] == deployed["roles"][0][name] for name in figures)
    better = json.loads(call("solve", "--deployment", out, "--work", "0.05", "--json").out)
    rows = {row["name"]: row["tokens_per_s"] for row in better["roles"][0]["strategies"]}
    assert "solved" in rows
    assert better["roles"][0]["split"]["ep"] == deployed["roles"][0]["split"]["ep"]


def test_roles_are_pinned_apart(call: Call) -> None:
    plan = record(call, "--mode", "disaggregated", "--decode-ep", "16", "--decode-tp", "1", "--prefill-tp", "8")
    by = {role["role"]: role for role in plan["roles"]}
    assert (by["decode"]["split"]["ep"], by["decode"]["split"]["tp"], by["prefill"]["split"]["tp"]) == (16, 1, 8)


def test_the_front_trades_users_for_gpus(call: Call) -> None:
    answers = record(call, "--front")["answers"]
    assert len(answers) >= 4
    limits = [answer["tpot_limit_ms"] for answer in answers]
    rates = [answer["tokens_per_s"] for answer in answers]
    assert limits == sorted(limits)
    assert rates == sorted(rates)


def test_the_screen_names_every_kind_of_instance_and_pool(call: Call) -> None:
    done = call("deploy", "--spec", SPEC, "--balanced", "--pool", "b200_hgx_ib", "-v", "--set", "routing.tokens=512")
    assert done.code == 0
    for word in ("ANSWER", "certificate", "h100_hgx_ib", "b200_hgx_ib", "runner-up", "priced"):
        assert word in done.out
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--spec", "dgx_a100_175b"), 2, "is training"),
        (("--spec", "dgx_a100_175b", "--prefill-tp", "2"), 2, "prefill_pins, decode_pins and pins.cp are of serving"),
        (("--spec", SPEC, "--set", "pins.cp=2", "--mode", "aggregated"), 2, "neither prefill nor decode"),
        (("--spec", "nowhere"), 2, "nowhere"),
        (("--spec", SPEC, "--tp", "7"), 2, "tp 7"),
        (("--spec", SPEC, "--mode", "disaggregated", "--decode-tp", "7"), 2, "tp 7"),
        (("--spec", SPEC, "--pool", "abacus"), 2, "abacus"),
        (("--spec", SPEC, "--front", "--target-rate", "5"), 2, "exclude each other"),
        (("--spec", SPEC, "--tpot-ms", "0.5"), 3, "TPOT"),
        (("--spec", SPEC, "--ttft-ms", "5"), 3, "TTFT"),
        (("--spec", SPEC, "--ttft-ms", "5", "--mode", "aggregated"), 3, "TTFT 5 ms"),
        (("--spec", SPEC, "--target-rate", "1e9"), 3, "the most is"),
        (("--spec", "kimi_k2_h200_ib", "--tp", "1", "--ep", "1", "--pp", "1", "--dp", "1"), 3, "HBM"),
    ],
)
def test_refusals_are_one_line(call: Call, args: tuple[str, ...], code: int, words: str) -> None:
    done = call("deploy", *args, "--balanced", "--set", "routing.tokens=512")
    assert done.code == code, done.err
    assert words in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_roles_that_do_not_fit_together_are_refused_with_their_sizes(call: Call, tmp_path: Path) -> None:
    # The pins make an instance of all four GPUs, in both roles.
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, "pins": {"tp": 1, "ep": 4, "pp": 1, "dp": 4}}))
    done = call("deploy", "--spec", str(path), "--mode", "disaggregated")
    assert done.code == 3
    assert "smallest prefill instance takes 4 GPUs" in done.err
    assert "of 4 GPUs" in done.err


def test_under_a_target_answers_are_compared_by_their_gpus(call: Call) -> None:
    rate = ("--target-rate", "8000", "--explain")
    found = record(call, *rate)
    choice, gpus = found["choice"], plan_from_json(json.dumps(found), "out").gpus
    assert choice["goal"] == "gpus"
    # Nothing that is made easier takes more GPUs; what does without a chosen kind takes no fewer.
    assert all(each["gpus"] <= gpus for each in choice["what_if"])
    assert choice["runner_up"] is None or choice["runner_up"]["gpus"] >= gpus
    assert not any("node" in each["change"].split() for each in choice["what_if"])
    done = call("deploy", "--spec", SPEC, *rate, "--balanced", "--set", "routing.tokens=512")
    assert f"GPUs instead of {gpus}" in done.out or "no fewer GPUs" in done.out
    assert "% tokens/s" not in done.out.partition("would buy")[2].partition("idle")[0]
