"""Measured kernel tables: interpolation, which split they cover, and what they replace."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from placement.cost.step.kernels import KernelCurve, KernelTables, kernel_type
from placement.cost.step.pass_times import PassModel
from placement.problem.split import make_split
from specs.loading import load_scenario
from specs.model_common import DataTypes
from tests.cost import scenarios as s

CURVE = KernelCurve((1.0, 10.0, 1000.0), (1e-5, 1e-4, 1e-3), "kernel table, test 1")


class OneCurve(KernelTables):
    """Tables that cover everything with one curve."""

    def curve(self, *_: object) -> KernelCurve:
        return CURVE


def test_interpolation_is_linear_in_logarithms() -> None:
    for tokens, seconds in zip(CURVE.tokens, CURVE.seconds, strict=True):
        assert CURVE.at(tokens) == pytest.approx(seconds)
    assert CURVE.at(0.1) == 1e-5
    assert CURVE.at(10**0.5) == pytest.approx(10**-4.5)
    assert CURVE.at(100.0) == pytest.approx(10**-3.5)
    assert CURVE.at(4000.0) == pytest.approx(4e-3)


def test_a_curve_replaces_the_experts_alone() -> None:
    case = s.scenario()
    split = make_split(case, tp=1, ep=4, pp=1, dp=4, batch=8)
    plain, measured = PassModel(case, split), PassModel(case, split, kernels=OneCurve(Path()))
    assert measured.layer.experts_s(5.0) == CURVE.at(20.0)
    assert measured.layer.messages_s(5.0) == plain.layer.messages_s(5.0)
    assert (plain.moe_source, measured.moe_source) == ("balanced estimate", "kernel table, test 1")
    more = make_split(case, tp=1, ep=4, pp=1, dp=4, batch=8, redundant=4)
    assert PassModel(case, more, kernels=OneCurve(Path())).moe_source == "balanced estimate"


def test_types_have_the_tables_names() -> None:
    assert kernel_type(DataTypes()) == "bfloat16"
    assert kernel_type(DataTypes(experts="mxfp4", compute="fp8")) == "w4a8_mxfp4_mxfp8"
    assert kernel_type(DataTypes(experts="int4")) is None


def test_what_no_table_covers_is_none(tmp_path: Path) -> None:
    case = load_scenario("deepseek_r1_h200_ib")
    assert KernelTables(tmp_path).curve(case, make_split(case, 1, 8, 1, 8, 1), case.model.moe) is None
    small = s.scenario()
    assert KernelTables(tmp_path).curve(small, make_split(small, 1, 4, 1, 4, 1), small.model.moe) is None


def test_without_the_package_the_command_says_what_to_install() -> None:
    if importlib.util.find_spec("aiconfigurator_core") is not None:
        pytest.skip("the package is installed")
    done = subprocess.run(
        [sys.executable, "-m", "placement.deploy", "--spec", "kimi_k2_h200_ib", "--balanced", "--kernel-tables"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 5
    assert done.stderr == "error: measured kernel tables are not installed; pip install 'placement[kernels]'\n"


def test_tables_of_the_package() -> None:
    pytest.importorskip("aiconfigurator_core")
    pytest.importorskip("pyarrow")
    case = load_scenario("deepseek_r1_h200_ib")
    curve = KernelTables.installed().curve(case, make_split(case, 1, 8, 1, 8, 1), case.model.moe)
    assert curve is not None
    assert curve.at(64) < curve.at(4096)
    assert "trtllm" in curve.source
