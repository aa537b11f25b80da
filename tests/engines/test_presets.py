"""Presets: names, values, the four formats, the launch script, checks and the smoke test."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from placement.engines.presets.checks import checks_of
from placement.engines.presets.deepep import bulk_bytes, deepep, low_latency_bytes, low_latency_width
from placement.engines.presets.fabric import fabric_of, fabrics, on_fabric
from placement.engines.presets.formats import (
    dotenv_text,
    json_text,
    kubernetes_text,
    serve_script,
    shell_text,
)
from placement.engines.presets.formulas import FORMULAS
from placement.engines.presets.messages import messages_of
from placement.engines.presets.preset import Preset, command_options, left_out_of, preset_of
from placement.engines.presets.served import Asked, Served, default_backend, serve
from placement.engines.presets.smoke import smoke_script
from placement.engines.settings.catalog import FABRICS, EngineName, Fabric, Setting, catalog
from placement.engines.settings.names import names_of
from placement.errors import InfeasibleError, InputError, ParameterError
from specs.loading import catalog_names, load_engine, load_scenario
from specs.overrides import overridden
from specs.scenario import Scenario

GOLDEN = Path(__file__).parent / "golden" / "presets"
WRITE = os.environ.get("PRESETS") == "write"
ENGINES: tuple[EngineName, ...] = ("vllm", "sglang")

#: An instance whose preset has a value of every kind: fixed, computed, the site's, to be measured.
FULL = Asked(
    model="deepseek-ai/DeepSeek-R1", dp=32, backend="deepep_low_latency", max_seqs=64, role="decode",
    hca="mlx5_0,mlx5_1,mlx5_2,mlx5_3,mlx5_4,mlx5_5,mlx5_6,mlx5_7", interface="bond0", service_level=3,
)  # fmt: skip


@cache
def _scenario(name: str = "deepseek_r1_h200_ib") -> Scenario:
    return load_scenario(name)


@cache
def _full() -> Served:
    return serve(_scenario(), "vllm", "ib", FULL)


def _all(fabric: Fabric) -> Iterator[tuple[Served, Preset]]:
    """Every engine and backend that runs on a fabric, in every role, for the whole launch and for messages alone."""
    scenario = _scenario("gpt_oss_120b_gb200_ib" if fabric == "nvl72" else "deepseek_r1_h200_ib")
    for engine in ENGINES:
        for backend, role in itertools.product(fabrics()[fabric].backends[engine], ("aggregated", "prefill", "decode")):
            asked = Asked(backend=backend, role=role, hca="mlx5_0", interface="eth0", service_level=1, traffic_class=96)
            try:
                served = serve(scenario, engine, fabric, asked)
            except InfeasibleError:  # such as bulk kernels on OS nodes of 4 GPUs
                continue
            yield from ((served, preset_of(served, launch=launch)) for launch in (True, False))


@pytest.mark.parametrize("fabric", FABRICS)
def test_every_name_stands_in_the_lists(fabric: Fabric) -> None:
    """And none of those that NCCL's guide keeps for debugging, in no format, not even as a comment."""
    found = list(_all(fabric)) if fabric != "efa" else list(_on_efa())
    assert found
    for served, preset in found:
        for entry in (*preset.variables, *preset.options, *preset.measure_first, *preset.ask_the_site):
            known = names_of(entry.software)
            assert entry.name in (known.options if entry.kind == "option" else known.variables)
            assert entry.reason
            assert entry.document
        texts = [shell_text(preset), dotenv_text(preset), kubernetes_text(preset), json_text(preset)]
        if served.engine == "vllm":
            texts.append(serve_script(served, preset))
        words = set(" ".join(texts).replace("=", " ").replace('"', " ").replace(":", " ").split())
        assert words & names_of("nccl").debugging == set()
        assert not {entry.name for entry in preset.measure_first} & {entry.name for entry in preset.variables}


def _on_efa() -> Iterator[tuple[Served, Preset]]:
    for engine in ENGINES:
        served = serve(_scenario("gpt_oss_120b_gb200_ib"), engine, "efa", Asked(interface="eth0"))
        yield served, preset_of(served)


def test_an_unknown_name_is_refused() -> None:
    """So is what is for debugging, a value without a reason, and two ways to one value."""
    fine = {"name": "NCCL_IB_HCA", "software": "nccl", "need": "required", "document": "nccl_env", "reason": "r"}
    Setting.model_validate(fine | {"value": "1"})
    for change, told in (
        ({"name": "NCCL_FASTER"}, "NCCL_FASTER is no name that nccl 2.30.7 knows"),
        ({"name": "VLLM_PORT"}, "VLLM_PORT is no name that nccl"),
        ({"name": "NCCL_BUFFSIZE"}, "NCCL_BUFFSIZE is for debugging"),
        ({"reason": ""}, "has no reason"),
        ({"site": "hca"}, "has several of value, formula and site"),
    ):
        with pytest.raises(ValidationError, match=told):
            Setting.model_validate(fine | {"value": "1"} | change)


def test_the_catalog_is_of_use() -> None:
    """Every document is used, every formula is asked for, and what is left out is not set."""
    entries = (*catalog().settings, *catalog().left_out)
    assert {each.document for each in entries} == set(catalog().documents)
    assert {each.formula for each in catalog().settings if each.formula} == set(FORMULAS)
    left = " ".join(each.setting for each in catalog().left_out).replace(",", " ").replace("=", " ").split()
    assert not {each.name for each in catalog().settings} & set(left)
    assert {"NCCL_ALGO", "NCCL_PROTO", "CUDA_DEVICE_MAX_CONNECTIONS", "NCCL_MNNVL_ENABLE"} <= set(left)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("env.sh", lambda served, preset: shell_text(preset)),
        ("preset.env", lambda served, preset: dotenv_text(preset)),
        ("env.yaml", lambda served, preset: kubernetes_text(preset)),
        ("preset.json", lambda served, preset: json_text(preset)),
        ("serve.sh", serve_script),
    ],
)
def test_formats_stay_as_they_are(name: str, text: object) -> None:
    """The files of tests/engines/golden/presets; `PRESETS=write` writes them."""
    assert callable(text)
    made = text(_full(), preset_of(_full()))
    path = GOLDEN / name
    if WRITE:
        path.parent.mkdir(exist_ok=True)
        path.write_text(made)
    assert made == path.read_text()


def test_formats_say_the_same() -> None:
    """Shell, .env, Kubernetes and JSON have the same variables with the same values."""
    preset = preset_of(_full())
    listed = {entry.name: entry.value for entry in preset.variables}
    assert listed["NCCL_IB_HCA"] == f"={FULL.hca}"
    assert listed["NVSHMEM_IB_SL"] == "3"
    lines = [line for line in dotenv_text(preset).splitlines() if line and not line.startswith("#")]
    assert dict(line.split("=", 1) for line in lines) == listed
    held = yaml.safe_load(kubernetes_text(preset))["env"]
    assert {each["name"]: each["value"] for each in held} == listed
    assert all(isinstance(each["value"], str) for each in held)
    assert Preset.model_validate(json.loads(json_text(preset))) == preset


@pytest.mark.parametrize("fabric", ["nvlink", "nvl72", "ib", "ethernet"])
def test_sourced_it_sets_exactly_what_it_lists(fabric: Fabric, tmp_path: Path) -> None:
    """In a shell without any other variable."""
    for number, (_, preset) in enumerate(_all(fabric)):
        if number % 5:  # a shell takes its time
            continue
        path = tmp_path / "env.sh"
        path.write_text(shell_text(preset))
        script = f"declare -px > {tmp_path}/before; . {path}; env -0"
        done = subprocess.run(["env", "-i", "bash", "-c", script], capture_output=True, text=True, check=True)
        found = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
        own = {name: value for name, value in found.items() if name not in ("PWD", "SHLVL", "_", "OLDPWD")}
        assert own == {entry.name: entry.value for entry in preset.variables}


@pytest.mark.parametrize("node", [0, 1])
def test_the_script_starts_what_is_listed(node: int, tmp_path: Path) -> None:
    """Each OS node's process gets its options, and the environment of the preset."""
    served = _full()
    preset = preset_of(served)
    (tmp_path / "env.sh").write_text(shell_text(preset))
    (tmp_path / "serve.sh").write_text(serve_script(served, preset))
    vllm = tmp_path / "vllm"
    vllm.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@" > "$OUT"; printf "%s" "$NCCL_IB_HCA" >> "$OUT"\n')
    vllm.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HEAD_ADDRESS": "10.0.0.1", "OUT": f"{tmp_path}/out"}
    environment["NODE_RANK"] = str(node)
    subprocess.run(["bash", str(tmp_path / "serve.sh")], env=environment, check=True, timeout=20)
    said = (tmp_path / "out").read_text().splitlines()
    assert said[:2] == ["serve", FULL.model]
    assert said[-1] == f"={FULL.hca}"
    filled = {"$HEAD_ADDRESS": "10.0.0.1", "$PORT": "8000", "$RENDEZVOUS_PORT": "29500", "$RANKS_PORT": "29550"}
    wanted = [(option.name, filled.get(option.value or "", option.value)) for option in command_options(served, node)]
    given: list[tuple[str, str | None]] = []
    for word in said[2:-1]:
        if word.startswith("--"):
            given.append((word, None))
        else:
            given[-1] = (given[-1][0], word)
    assert sorted(map(str, given)) == sorted(map(str, wanted))
    assert ("--max-num-seqs", "64") in given
    assert (("--headless", None) in given) == (node > 0)


def test_what_is_asked_for_is_in_the_command() -> None:
    """Degrees, batch, length and share of HBM."""
    asked = Asked(tp=2, pp=1, dp=2, max_seqs=40, max_len=9000, gpu_util=0.85, backend="allgather_reducescatter")
    served = serve(_scenario("gpt_oss_120b_gb200_ib"), "vllm", "nvlink", asked)
    options = {option.name: option.value for option in command_options(served, 0)}
    expected = {
        "--tensor-parallel-size": "2", "--data-parallel-size": "2", "--max-num-seqs": "40", "--max-model-len": "9000",
        "--gpu-memory-utilization": "0.85", "--all2all-backend": "allgather_reducescatter",
    }  # fmt: skip
    assert expected.items() <= options.items()
    assert "--enable-expert-parallel" in options
    alone = serve(_scenario("olmoe_1b_7b_h100_ib"), "vllm", "nvlink", Asked(tp=1, dp=1, ep=1))
    assert "--enable-expert-parallel" not in {option.name for option in command_options(alone, 0)}
    assert messages_of(alone) == ()


@pytest.mark.parametrize(
    ("asked", "error", "told"),
    [
        (Asked(dp=3, tp=4), ParameterError, "tp x dp = 12 neither divides a node of 8"),
        (Asked(tp=3), ParameterError, "tp 3 does not divide"),
        (Asked(dp=8, ep=3), ParameterError, "`ep`: 3 does not divide tp x dp = 8"),
        (Asked(dp=8, ep=4), ParameterError, "is neither 1 nor tp x dp"),
        (Asked(dp=16), ParameterError, "more than the 8 of an OS node, which nvlink reaches"),
        (Asked(dp=4096), ParameterError, "is more than 32 GPUs"),
        (Asked(tp=0), ParameterError, "`tp`: 0 is not positive"),
        (Asked(backend="pplx"), ParameterError, "choose allgather_reducescatter, deepep_high_throughput"),
        (Asked(gpu_util=1.5), ParameterError, "1.5 is no share of HBM"),
        (Asked(dp=8, max_seqs=1000), InfeasibleError, "1000 sequences .* at most"),
    ],
)
def test_what_cannot_be_is_refused(asked: Asked, error: type[Exception], told: str) -> None:
    """With what is wrong and what could be."""
    with pytest.raises(error, match=told):
        serve(_scenario(), "vllm", "nvlink", asked)


def test_a_wrong_fabric_names_those_that_there_are() -> None:
    """All five."""
    with pytest.raises(ParameterError, match="choose nvlink, nvl72, ib, efa, ethernet"):
        fabric_of("infiniband")
    for hca in ("mlx5_0; rm -rf /", ",", "mlx5_0,", "mlx5_0,,mlx5_1", "-h", "mlx5_0,--help", "mlx5_0\n"):
        with pytest.raises(ParameterError, match="no list of names"):
            Asked(hca=hca)
    assert Asked(hca="mlx5_0:1,mlx5_bond-1", interface="_if.0").hca == "mlx5_0:1,mlx5_bond-1"


def test_other_makers_have_other_libraries() -> None:
    """NCCL, NVSHMEM and DeepEP are NVIDIA's; a file of one's own is not asked for its maker."""
    amd = overridden(_scenario("mixtral_8x7b_h100_ib"), cluster="mi300x_ib")
    with pytest.raises(InputError, match=r"MI300X.* is not NVIDIA's"):
        serve(amd, "vllm", "nvlink")


def test_the_default_instance_uses_the_fabric() -> None:
    """nvlink fills an OS node, nvl72 takes several of one domain, others several domains; clusters are as close as
    there are."""
    scenario = _scenario("gpt_oss_120b_gb200_ib")
    gb200 = scenario.cluster
    for fabric in FABRICS:
        served = serve(scenario, "vllm", fabric)
        cluster, gpus = served.scenario.cluster, served.split.gpus_per_instance
        inside = {"nvlink": gpus == cluster.os_node_gpus, "nvl72": 4 < gpus <= 72}
        assert inside.get(fabric, gpus > cluster.gpus_per_node)
        assert served.predicted().tokens_per_s >= default_backend(served).predicted().tokens_per_s
    assert on_fabric(scenario, "ib").cluster == gb200
    assert on_fabric(scenario, "ethernet").cluster.name == "gb200_nvl72_ethernet"
    own = gb200.model_copy(update={"name": "mine"})
    assert on_fabric(scenario.model_copy(update={"cluster": own}), "efa").cluster is own


def test_kernels_need_boxes_of_eight() -> None:
    """On OS nodes of 4 GPUs DeepEP's kernels over NVSHMEM are not offered; over multi-node NVLink they are."""
    served = serve(_scenario("deepseek_v2_lite_h100_ib"), "vllm", "ib")
    assert served.scenario.cluster.os_node_gpus == 4
    assert served.backend == "deepep_v2"
    for backend in ("deepep_high_throughput", "deepep_low_latency"):
        with pytest.raises(InfeasibleError):
            serve(_scenario("deepseek_v2_lite_h100_ib"), "vllm", "ib", Asked(backend=backend))
    rack = serve(_scenario("gpt_oss_120b_gb200_ib"), "vllm", "nvl72", Asked(backend="deepep_low_latency"))
    assert rack.nodes > 1


def test_decode_keeps_its_graphs() -> None:
    """The bulk kernels are chosen for prefill, or when they are asked for."""
    for role, graphs in (("aggregated", True), ("decode", True), ("prefill", False)):
        served = serve(_scenario(), "vllm", "ib", Asked(role=role))  # type: ignore[arg-type]
        assert (served.backend != "deepep_high_throughput") == graphs
    assert serve(_scenario(), "vllm", "ib", Asked(backend="deepep_high_throughput")).serves == "aggregated"


def test_a_plan_is_taken_over() -> None:
    """Degrees, largest batch and redundant experts of a role."""

    class Split:
        tp, pp, ep, dp, batch, redundant = 1, 1, 16, 16, 30, 16

    class Role:
        role, split, largest_batch = "decode", Split(), 32

    asked = Asked(hca="mlx5_0").of_role(Role())  # type: ignore[arg-type]
    served = serve(_scenario(), "vllm", "ib", asked)
    assert (served.split.ep, served.split.batch, served.split.redundant) == (16, 32, 16)
    assert (served.split.slots_per_gpu, served.serves, served.asked.hca) == (17, "decode", "mlx5_0")


def test_sizes_of_deepep() -> None:
    """Counted by hand from its layouts."""
    # 1 expert, 1 token of 128: a dispatch of 16 + 256, a combine of 4 + 256, signals of 128.
    assert low_latency_bytes(1, 128, 1) == 2 * (272 + 272 + 128)
    # 7168 wide: a combine of 56 x 4 + 14336 bytes is larger than a dispatch of 16 + 14336.
    assert low_latency_bytes(128, 7168, 288) == 2 * (2 * 288 * 128 * 14560 + 1152)
    assert low_latency_width(2880) == 3072
    assert low_latency_width(7168) == 7168
    # 10 channels x 8 GPUs x 288 tokens of 2 x 7168 + 8 + 128 x 16 bytes, and 4 x (2 x 2 + 3) a channel and GPU.
    nvlink, rdma = bulk_bytes(7168, 16)
    assert nvlink == 10 * 8 * (288 * (14336 + 8 + 128 * 16) + 28)
    # 10 channels x 2 nodes x 2 x 140 tokens of 16 bytes more, and 4 x 18 a channel, node and direction; 1 MiB.
    assert rdma == 10 * 2 * 2 * (140 * (14336 + 8 + 128 * 16 + 16) + 72) + 2**20
    assert bulk_bytes(2048, 8)[1] == 0
    assert set(deepep().chunks) == {2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 144, 160}


@pytest.mark.parametrize(("engine", "backend"), [("vllm", "deepep_high_throughput"), ("sglang", "deepep")])
def test_sizes_that_the_catalog_takes_are_those_that_have_buffers(engine: str, backend: str) -> None:
    """The engine's rule and DeepEP's constants are written down apart."""
    sizes = [rule.sizes for rule in load_engine(engine).backends[backend].rules if rule.name == "ep_sizes"]
    assert sizes == [tuple(deepep().chunks)]


def test_queues_are_as_deep_as_steps_are_long() -> None:
    """Nothing is set where the default is enough; SGLang sets it by itself."""
    scenario = _scenario("gpt_oss_120b_gb200_ib")
    shallow = serve(scenario, "vllm", "nvl72", Asked(backend="deepep_low_latency"))
    assert FORMULAS["queue_depth"](shallow) is None
    deep = serve(scenario, "vllm", "nvl72", Asked(backend="deepep_low_latency", max_seqs=600))
    sized = FORMULAS["queue_depth"](deep)
    assert sized is not None
    assert (sized.value, sized.formula) == ("2048", "2 x (600 tokens + 1) = 1202, up to a power of two")
    assert "NVSHMEM_QP_DEPTH" in {entry.name for entry in preset_of(deep).variables}
    assert "NVSHMEM_QP_DEPTH" not in {entry.name for entry in preset_of(shallow).variables}


def test_sglang_refuses_larger_buffers() -> None:
    """1024 tokens of a GPU, whatever is asked for; fewer are rounded up to what a graph is captured for."""
    scenario = _scenario("deepseek_v2_lite_h100_ib")
    with pytest.raises(ParameterError, match="2000 tokens of a GPU, more than 1024"):
        serve(scenario, "sglang", "nvlink", Asked(backend="deepep", max_seqs=2000))
    served = serve(scenario, "sglang", "nvlink", Asked(backend="deepep", max_seqs=131))
    values = {entry.name: entry.value for entry in preset_of(served).variables}
    assert values["SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK"] == "136"


def test_checks_measure_the_messages() -> None:
    """Sizes are those of a pass; figures are the tariff's."""
    served = _full()
    found = {check.name: check for check in checks_of(served, preset_of(served))}
    (decode,) = messages_of(served)
    dispatch = found["NCCL all-to-all, decode dispatch"]
    size = int(dispatch.command.split("-b ")[1].split()[0])
    assert decode.peer_bytes <= size / 32 < decode.peer_bytes + 16
    # Uniform top-8 of 256 experts over 32 GPUs of 8 experts each: a token reaches a GPU unless all 8 lie elsewhere.
    miss = 1.0
    for drawn in range(8):
        miss *= (248 - drawn) / (256 - drawn)
    assert decode.peer_bytes == pytest.approx(64 * (1 - miss) * (7168 + 56 * 4))
    # 24 of 32 parts cross to other boxes at 44 GB/s.
    assert dispatch.expected == pytest.approx(3.33 + 3.7 + size * 24 / 32 / 44e9 * 1e6, abs=0.1)
    assert "-x NCCL_IB_HCA" in dispatch.command
    rails = found["rails, one NIC after the other"]
    assert len(rails.command.splitlines()) == 8
    assert rails.expected == pytest.approx(400 * 0.88)
    assert "--num-experts 256 " in found["DeepEP, decode dispatch and combine"].command + " "
    assert all(check.if_lower for check in found.values())


def test_nvl72_is_checked_across_os_nodes() -> None:
    """A debugging variable makes a broken domain an error, in the check alone; the preset says what nodes are."""
    served = serve(_scenario("gpt_oss_120b_gb200_ib"), "vllm", "nvl72")
    preset = preset_of(served)
    commands = [check.command for check in checks_of(served, preset)]
    assert any("-N 4" in command and "-x NCCL_MNNVL_ENABLE=1" in command for command in commands)
    assert "nvidia-imex-ctl" in commands[0]
    assert "NCCL_MNNVL_ENABLE" not in json_text(preset)
    assert any("NCCL_MNNVL_ENABLE" in each.setting for each, _ in left_out_of(served))
    assert (preset.os_nodes, preset.gpus) == (2, 4)


class _Model(BaseHTTPRequestHandler):
    """A server with OpenAI's interface that knows some answers."""

    right = True

    def do_GET(self) -> None:
        self._say({"data": [{"id": "tiny"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = asked["messages"][0]["content"]
        answers = {"17 + 25": "42.", "France": "Paris", "opposite": "Hot", "print": "6"}
        answer = next(said for word, said in answers.items() if word in question)
        assert asked["model"] == "tiny"
        self._say({"choices": [{"message": {"content": answer if self.right else "421 Parisian photos at 16:00"}}]})

    def _say(self, data: object) -> None:
        body = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("right", [True, False])
def test_the_smoke_test_reads_the_answers(right: bool, tmp_path: Path) -> None:
    """Whole words count: what merely contains an answer is wrong."""
    path = tmp_path / "smoke.sh"
    path.write_text(smoke_script())
    handler = type("Model", (_Model,), {"right": right})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = ["bash", str(path), "127.0.0.1", str(server.server_port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        server.shutdown()
    assert done.returncode == (0 if right else 1), done.stdout + done.stderr
    assert done.stdout.count("ok: " if right else "wrong: ") == 4


def test_the_smoke_test_waits_for_nobody(tmp_path: Path) -> None:
    """Without a server it says so."""
    path = tmp_path / "smoke.sh"
    path.write_text(smoke_script())
    done = subprocess.run(["bash", str(path), "127.0.0.1", "1"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "not ready" in done.stdout


def test_every_fabric_knows_its_clusters() -> None:
    """Names of the catalog; the engine's default backend comes first."""
    for record in fabrics().values():
        assert set(record.clusters) <= set(catalog_names("cluster"))
        assert record.backends["vllm"][0] == "allgather_reducescatter"
        assert record.backends["sglang"][0] == "none"
