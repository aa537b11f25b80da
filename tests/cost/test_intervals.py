"""Which group's interval a plan gets, and what is said of it."""

from __future__ import annotations

import json

import pytest

from placement.cost.calibration.intervals import (
    NEAREST,
    Band,
    Bands,
    HeldOut,
    Interval,
    Intervals,
    MeasuredCase,
    Shape,
    Standing,
    load_intervals,
)
from placement.cost.step.role_figures import predict_role
from placement.cost.step.throughput import predict
from placement.problem.split import make_split
from specs.loading import load_scenario

B200, H200 = "B200 SXM 180GB", "H200 SXM 141GB"
SHAPE = Shape(layers=2, hidden=64, experts=8, top_k=2)
HERE = Standing("blackwell", B200, "m", "gqa", "vllm", 8)


def case(model: str, gpu: str, generation: str, engine: str = "vllm", attention: str = "gqa") -> MeasuredCase:
    return MeasuredCase(model=model, attention=attention, gpu=gpu, generation=generation, engine=engine, rows=30)


def band(low: float, high: float) -> Band:
    return Band(rows=30, low=low, high=high)


def group(held_out: HeldOut, by: int, **bands: Band) -> Bands:
    """Bands by the `by`-th nearest keys; levels with "__" for "/" and "_" for blanks."""
    levels = {level.replace("__", "/").replace("_", " "): one for level, one in bands.items()}
    return Bands(
        figure="rate" if held_out == "deployment" else "tpot", held_out=held_out, by=NEAREST[held_out][by], bands=levels
    )


KNOWN = Intervals(
    source="test", coverage=0.8, largest_batch=128, models={"m": SHAPE},
    cases=(
        case("m", B200, "blackwell"), case("n", B200, "blackwell"), case("n", H200, "hopper", "trtllm"),
        case("l", H200, "hopper", "sglang", "mla"),
    ),
    groups=(
        group("measurement", 0, B200_SXM_180GB__m__vllm=band(0.9, 1.1)),
        group(
            "measurement", 1, engine_named__B200_SXM_180GB__m=band(0.8, 1.2),
            no_engine__B200_SXM_180GB__m=band(0.7, 1.3),
        ),
        group("model and GPU", 0, engine_named=band(0.6, 1.4)),
        group("model", 0, engine_named=band(0.5, 1.2)),
        group("attention", 0, engine_named=band(0.4, 1.3)),
        group("GPU type", 0, engine_named=band(0.55, 2.0)),
        group("deployment", 0, hopper=band(0.3, 3.0)),
        group("deployment", 1, all=band(0.2, 4.0)),
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "low", "high"),
    [
        ({}, 0.9, 1.1),
        ({"engine": "sglang"}, 0.8, 1.2),
        ({"engine": None}, 0.7, 1.3),
        ({"gpu": H200, "generation": "hopper"}, 0.6, 1.4),
        ({"model": None}, 0.5, 1.2),
        ({"model": None, "attention": "linear"}, 0.4, 1.3),
        ({"gpu": "GB300"}, 0.55, 2.0),
        ({"gpu": "GB300", "model": None}, 0.5, 2.0),
        ({"batch": 500}, 0.2, 4.0),
        ({"batch": 500, "generation": "hopper", "gpu": H200}, 0.3, 3.0),
    ],
)
def test_what_was_never_measured_decides_which_residuals_tell(
    change: dict[str, object], low: float, high: float
) -> None:
    found = KNOWN.find("tpot", HERE.__class__(**{**HERE.__dict__, **change}))  # type: ignore[arg-type]
    assert found is not None
    assert (found.low, found.high, found.coverage) == (low, high, 0.8)


def test_no_group_is_no_interval() -> None:
    assert KNOWN.find("ttft", HERE) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "measured within: m, B200, vllm"),
        ({"engine": None}, "measured within: m, B200, engine not named"),
        ({"engine": "sglang"}, "nearest measured: m on B200, another engine"),
        ({"gpu": "GB200 186GB"}, "nearest measured: m on B200, another GPU"),
        (
            {"model": None, "attention": "mla", "gpu": H200},
            "nearest measured: l on H200, another model and another engine",
        ),
        ({"model": None, "gpu": H200, "engine": None}, "nearest measured: n on H200, another model"),
    ],
)
def test_what_was_measured_nearest_in_words(change: dict[str, object], words: str) -> None:
    assert KNOWN.nearest(Standing(**{**HERE.__dict__, **change})) == words  # type: ignore[arg-type]


def test_a_group_is_named_by_what_it_has_in_common() -> None:
    found, wider, published = (
        KNOWN.find("tpot", Standing(**{**HERE.__dict__, **change}))  # type: ignore[arg-type]
        for change in ({}, {"gpu": "GB300", "model": None}, {"batch": 500})
    )
    assert found is not None
    assert wider is not None
    assert published is not None
    assert found.group == "30 measurements of m on B200 under vllm"
    assert wider.group == "30 measurements, models held out; 30 measurements, GPU types held out"
    assert published.group == "30 published deployments"


def test_a_model_is_known_by_its_shape_whatever_its_name() -> None:
    scenario = load_scenario("gpt_oss_120b_gb200_ib")
    shipped = load_intervals()
    renamed = scenario.model_copy(update={"model": scenario.model.model_copy(update={"name": "mine"})})
    assert shipped.standing(renamed, 8).model == shipped.standing(scenario, 8).model == "gpt_oss_120b"


def test_a_rate_is_as_far_off_as_its_time_the_other_way() -> None:
    assert Interval(0.5, 4.0, 0.8, "g", "n").of_rate() == Interval(0.25, 2.0, 0.8, "g", "n")


def test_serving_figures_have_intervals_and_training_has_none() -> None:
    """Tokens/s of a decode instance follow TPOT, those of a prefill instance published rates."""
    scenario = load_scenario("deepseek_r1_gb200_ib")
    split = make_split(scenario, 1, 8, 1, 8, 32)
    whole = {each.figure: each.interval for each in predict(scenario, split).provenance}
    decode = {each.figure: each.interval for each in predict_role(scenario, "decode", split).provenance}
    prefill = {each.figure: each.interval for each in predict_role(scenario, "prefill", split).provenance}
    assert whole["tpot_s"] is not None
    assert whole["ttft_s"] is not None
    assert whole["tokens_per_s"] == whole["tpot_s"].of_rate()
    assert decode == {name: whole[name] for name in ("tpot_s", "tokens_per_s")}
    published = load_intervals().find("rate", load_intervals().standing(scenario, 32))
    assert published is not None
    assert prefill == {"ttft_s": whole["ttft_s"], "tokens_per_s": published.of_rate()}
    trained = load_scenario("dgx_a100_175b")
    made = predict(trained, make_split(trained, 8, 128, 1, 16, 1536 // 16))
    assert {each.interval for each in made.provenance} == {None}


def test_the_shipped_bands_hold_the_prediction_of_every_kind() -> None:
    """The data file is whole: every kind of novelty has a band for both figures, with the engine named and without."""
    shipped = load_intervals()
    assert json.loads(shipped.model_dump_json())["coverage"] == shipped.coverage == 0.8
    assert {(each.figure, each.held_out) for each in shipped.groups} == {
        *((figure, kind) for figure in ("tpot", "ttft") for kind in NEAREST if kind != "deployment"),
        ("rate", "deployment"),
    }
    for each in shipped.groups:
        if each.held_out not in ("measurement", "deployment"):
            assert set(each.bands) == {"engine named", "no engine"}
