"""`placement trace`: screens of 80 columns, files, errors that name options, and a real recording all the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import placement
from placement.cli import trace as commands
from placement.planning.trace import merge_traces, split_trace, trace_statistics
from placement.routing.reader import example_trace, read_trace
from placement.routing.recordings.detect import FORMATS
from placement.routing.trace import LoadCounts, Trace
from tests.cli.conftest import Done
from tests.routing.recordings import samples

RECORDING = Path("engines/maps/expert_distribution_fp4_1k1k_compressed.pt")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, so that screens name files alone."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _screen(done: Done) -> str:
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 80
    return done.out


def test_formats_are_the_library_s() -> None:
    assert tuple(FORMATS) == commands.FORMATS


def test_the_screen_of_a_conversion(here: Path, call: Callable[..., Done]) -> None:
    (here / "out.jsonl").write_bytes(samples.vllm_responses())
    done = call("trace", "convert", "out.jsonl", "--out", "t.npz")
    assert _screen(done) == (
        "wrote t.npz\n"
        "from   responses with routed_experts\n"
        "holds  3 MoE layers of 8 experts, top-2; 40 tokens in 3 sequences\n"
        "       dropped layer 0: no routing (dense layers)\n"
        "       took 8 experts, the highest id and one, as no model was given\n"
        "next   placement trace stats t.npz\n"
    )
    assert json.loads(call("trace", "convert", "out.jsonl", "--out", "t.npz", "--json").out)["tokens"] == 40


def test_the_screen_of_the_example_trace(here: Path, call: Callable[..., Done]) -> None:
    done = call("trace", "stats", str(example_trace()), "--plot", "routing.svg")
    assert _screen(done) == (
        "tiny_moe\n"
        "holds  4 MoE layers of 64 experts, top-4; 24,576 tokens in 96 sequences\n"
        "from   recorded from tiny-moe (4 MoE layers, hidden 128, 64 experts, top-4,\n"
        "       softmax router; trained from scratch on text and source files that Debian\n"
        "       packages install)\n"
        "\n"
        "over the layers                     mean   most  layer\n"
        "largest / mean expert load          3.25   5.01      3\n"
        "tokens on the busiest expert       20.3%  31.3%      3\n"
        "experts without a token              0.0    0.0      0\n"
        "load that moves between 8 windows  29.1%  32.2%      3\n"
        "  of that, by sampling alone        3.6%   3.7%      2\n"
        "closest partner, times chance        6.0    8.0      0\n"
        "\n"
        "locality  2.80 nodes per token balanced, 2.10 with experts that go together on\n"
        "          one node (25% less; 4 nodes, 4 layers, held out)\n"
        "verdict   usable: no expert takes over half of a layer's tokens\n"
        "plot      routing.svg\n"
    )
    assert (here / "routing.svg").read_text().startswith("<?xml")


def test_the_screen_of_a_log(here: Path, call: Callable[..., Done]) -> None:
    line = "INFO [eplb.py:634] EPLB step: %d for model deepseek: avg_tokens=8.00, max_tokens=16, balancedness=%.4f, s\n"
    (here / "server.log").write_text("INFO other\n" + "".join(line % (100 * i, 0.5 + i / 10) for i in range(4)))
    assert _screen(call("trace", "stats", "server.log")) == (
        "server.log\n"
        "model         deepseek\n"
        "steps         0 to 300, 4 logged\n"
        "balancedness  mean 0.650, least 0.500, most 0.800\n"
        "              first half 0.550, second half 0.750\n"
        "note          sum over layers of mean / sum of max load: not the mean of the\n"
        "              layers' ratios\n"
        "              a log holds no expert's load: nothing can be planned on it\n"
        "next          serve with --enable-return-routed-experts, then placement trace\n"
        "              convert\n"
    )
    assert json.loads(call("trace", "stats", "server.log", "--json").out)["steps"] == [0, 100, 200, 300]


def test_a_recording_of_sglang_all_the_way_to_a_plan(here: Path, shared_dir: Path, call: Callable[..., Done]) -> None:
    """Convert, describe, solve; the recording is of dummy inputs, and stats says so."""
    path = shared_dir / RECORDING
    if not path.exists():
        pytest.skip("recordings of engines are not beside this checkout (../shared/engines/maps)")
    done = call("trace", "convert", str(path), "--model", "deepseek_r1", "--out", "r1.npz")
    assert _screen(done) == (
        "wrote r1.npz\n"
        "from   SGLang's expert distribution recorder\n"
        "holds  58 MoE layers of 256 experts, top-8; load counts in 1 window\n"
        "       dropped layers 0-2: no routing (dense layers)\n"
        "next   placement trace stats r1.npz\n"
    )
    text = _screen(call("trace", "stats", "r1.npz"))
    assert "largest / mean expert load    24.42  31.81     29\n" in text
    assert "verdict   DEGENERATE: in 48 of 58 layers one expert takes over half of the\n" in text
    given = [
        "--nodes",
        "1",
        "--tp",
        "1",
        "--ep",
        "36",
        "--pp",
        "1",
        "--dp",
        "36",
        "--ttft-ms",
        "20000",
        "--tpot-ms",
        "500",
    ]
    done = call(
        "solve", "--spec", "deepseek_r1_gb200_ib", "--trace", "r1.npz", "--strategy", "greedy", "--work", "0.01",
        *given, "--out", "plan.json", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(done.out)["provenance"]["inputs"][0]["kind"] == "counts"


def test_what_takes_traces_names_the_conversion(here: Path, folder: Path, call: Callable[..., Done]) -> None:
    (here / "out.jsonl").write_bytes(samples.vllm_responses())
    told = "error: out.jsonl: is a recording (responses with routed_experts), not a trace; convert it: placement trace"
    for args in (
        ("solve", "--spec", str(folder / "tiny.yaml"), "--trace", "out.jsonl"),
        ("evaluate", "--plan", str(folder / "recorded.json"), "--trace", "out.jsonl"),
    ):
        done = call(*args)
        assert (done.code, done.err.startswith(told), done.err.count("\n")) == (2, True, 1), done.err


def test_split_and_merge_are_inverse(here: Path, call: Callable[..., Done]) -> None:
    (here / "t.npz").write_bytes(samples.npz(topk_ids=samples.truth(), seq_lens=np.array(samples.LENGTHS)))
    for args, parts in ((["--share", "0.6"], 2), (["--windows", "3"], 3)):
        done = call("trace", "split", "t.npz", *args, "--out", "part.npz")
        assert done.code == 0, done.err
        names = [f"part-{i + 1}.npz" for i in range(parts)]
        assert [line.split(":")[0] for line in done.out.splitlines()] == names
        assert call("trace", "merge", *names, "--out", "all.npz").code == 0
        whole = read_trace("all.npz", 8, 3, 2)
        assert isinstance(whole, Trace)
        assert np.array_equal(whole.topk_ids, samples.truth())
        assert whole.seq_lens.tolist() == list(samples.LENGTHS)
    first, second = split_trace("t.npz", share=0.6)
    assert isinstance(first, Trace)
    assert isinstance(second, Trace)
    assert (len(first.seq_lens), len(second.seq_lens)) == (2, 1)


def test_counts_split_and_merge_by_windows(here: Path) -> None:
    counts = np.stack([samples.counts(each)[1:] for each in samples.sequences()])
    whole = LoadCounts(counts.astype(float), "c", "recorded", meta={"top_k": 2})
    parts = split_trace(whole, windows=3)
    assert [len(part.counts) for part in parts if isinstance(part, LoadCounts)] == [1, 1, 1]
    merged = merge_traces(parts)
    assert isinstance(merged, LoadCounts)
    assert np.array_equal(merged.counts, counts)
    assert merged.meta["top_k"] == 2


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["convert", "none", "--out", "x.npz"], "none: no such file"),
        (["convert", "t.npz", "--out", "no/x.npz"], "--out: no/x.npz: can't be written"),
        (
            ["convert", "t.npz", "--out", "x.npz", "--model", "mixtral_8x7b"],
            "has 32 layers, 32 with experts, and top-2",
        ),
        (
            ["convert", "t.npz", "--out", "x.npz", "--axes", "a,b"],
            "has the axes tokens, layers, k in some order, not a, b",
        ),
        (["stats", "none"], "none: no such file"),
        (["stats", "t.npz", "--plot", "x"], "--plot: x: has no suffix of a picture"),
        (["split", "t.npz", "--out", "x"], "--share: and --windows are both given, or neither"),
        (["split", "t.npz", "--out", "x", "--share", "1.5"], "--share: 1.5 is no share"),
        (["split", "t.npz", "--out", "x", "--windows", "4"], "has 3 sequences, for 4 parts"),
        (["merge", "t.npz", "c.npz", "--out", "x.npz"], "holds load counts, the others token choices"),
        (["merge", "t.npz", "u.npz", "--out", "x.npz"], "u: has 2 MoE layers, t has 3"),
    ],
)
def test_errors_are_one_line(args: list[str], problem: str, here: Path, call: Callable[..., Done]) -> None:
    (here / "t.npz").write_bytes(samples.npz(topk_ids=samples.truth(), seq_lens=np.array(samples.LENGTHS)))
    (here / "u.npz").write_bytes(samples.npz(topk_ids=samples.truth()[:2]))
    (here / "c.npz").write_bytes(samples.npz(counts=samples.counts()[1:]))
    done = call("trace", *args)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert problem in done.err


def test_figures_of_known_routing() -> None:
    """Four experts in fixed pairs, top-2: every token's partner is certain, and one window differs from the other."""
    pairs = np.array([[0, 1]] * 6 + [[2, 3]] * 2 + [[0, 1]] * 2 + [[2, 3]] * 6)
    trace = Trace(pairs[None].astype(np.uint8), np.array([4, 4, 4, 4]), 4, "pairs", "recorded")
    report = trace_statistics(trace, windows=2)
    (layer,) = report.portraits
    assert layer.skew == pytest.approx(1.0)
    assert layer.top_share == pytest.approx(0.5)
    assert layer.moved == pytest.approx(0.5)  # 3/4 of the load on one pair, then 1/4
    assert layer.idle == 0
    assert report.degenerate == ()
    # Partners are always together: 1 over the half of it that chance would give to a load of 1/4 and 3/4.
    assert layer.partner == pytest.approx(0.25 / (0.25 * 0.25 / 2) * 0.25 + 0.75 / (0.75 * 0.75 / 2) * 0.75)
    assert report.locality is not None
    assert report.locality.nodes == 2
    assert report.locality.together == pytest.approx(1.0)


def test_a_layer_that_leans_on_one_expert_is_degenerate() -> None:
    counts = np.array([[[51.0, 20, 10, 19], [25, 25, 25, 25]]])
    report = trace_statistics(LoadCounts(counts, "c", "recorded"), top_k=1)
    assert [each.layer for each in report.degenerate] == [0]
    assert report.locality is None
    assert trace_statistics(LoadCounts(counts, "c", "recorded")).degenerate == ()


def test_the_library_converts_and_describes(here: Path) -> None:
    (here / "out.jsonl").write_bytes(samples.vllm_responses())
    done = placement.convert_recording(["out.jsonl"], "t.npz")
    assert (done.kind, done.tokens) == ("trace", 40)
    report = placement.trace_statistics("out.jsonl")  # a recording is converted on the way
    assert repr(report) == "<TraceReport out: 3 layers of 8 experts, skew 1.97, degenerate in 1>"
    assert report.notes == done.notes


def test_ids_are_named_as_an_array(call: Callable[..., Done], folder: Path) -> None:
    """FILE::topk_ids is the trace that FILE is."""
    told = [call("trace", "stats", f"{folder / 'a.npz'}{key}", "--json") for key in ("", "::topk_ids")]
    assert [done.code for done in told] == [0, 0]
    assert told[0].out == told[1].out


@pytest.mark.parametrize("mode", ["per_pass", "per_token"])
def test_a_dump_of_slots_is_read_through_a_map_of_another_file(
    mode: str, here: Path, call: Callable[..., Done]
) -> None:
    """As it is through the dump's own; without either, the message names the option."""
    torch = pytest.importorskip("torch")
    whole = {"per_pass": samples.sglang_per_pass, "per_token": samples.sglang_per_token}[mode]()
    Path("whole.pt").write_bytes(whole)
    data = torch.load("whole.pt", weights_only=True)
    del data["last_physical_to_logical_map"]
    torch.save(data, "bare.pt")
    Path("map.json").write_text(json.dumps({"physical_to_logical_map": samples.SLOTS.tolist()}))
    assert call("trace", "convert", "whole.pt", "--out", "whole.npz").code == 0
    done = call("trace", "convert", "bare.pt", "--out", "bare.npz")
    assert done.code == 2
    assert "is missing: ids are of slots" in done.err
    assert "as --map" in done.err
    done = call("trace", "convert", "bare.pt", "--map", "map.json", "--out", "bare.npz")
    assert done.code == 0, done.err
    found, wanted = read_trace("bare.npz"), read_trace("whole.npz")
    for name in ("topk_ids", "counts"):
        assert np.array_equal(getattr(found, name, 0), getattr(wanted, name, 0))
    done = call("trace", "convert", "whole.npz", "--map", "map.json", "--out", "again.npz")
    assert done.code == 2
    assert "--map: is for SGLang's recordings of slots" in done.err
    Path("map.json").write_text(json.dumps({"physical_to_logical_map": [[0, 1], [0]]}))
    assert "layers of unlike length" in call("trace", "convert", "bare.pt", "--map", "map.json", "--out", "b.npz").err
