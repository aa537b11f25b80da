"""Exported folders: scripts that run, options that engines know, manifests, and files that are checked."""

from __future__ import annotations

import ast
import csv
import json
import os
import stat
import subprocess
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from placement import (
    Budget,
    CheckFailedError,
    InputError,
    ParameterError,
    Plan,
    check_export,
    evaluate_plan,
    export_plan,
    load_plan,
    migrate_plan,
    verify_plan,
)
from placement.cli import export as command
from placement.cli.options import role_option as role_option
from placement.engines.launch.registry import LAUNCHERS
from placement.engines.launch.scripts import PORTS
from placement.engines.launch.site import Site, map_of
from placement.engines.launch.switches import PLACEHOLDERS, PLUGIN, shell_word, switches_of
from placement.engines.maps.registry import FORMATS
from placement.planning import export
from placement.records.layout import HeldRecord, NodesRecord
from tests.cli.conftest import Done
from tests.cli.conftest import call as call
from tests.engines import plans
from tests.engines.test_readers import engine

#: What a stand-in for an engine prints: its arguments and environment.
STAND_IN = """#!/usr/bin/env python3
import json, os, sys
print(json.dumps({"argv": sys.argv, "env": dict(os.environ)}))
"""
TARGETS = [name for name in FORMATS if name in LAUNCHERS]


@lru_cache(maxsize=8)
def planned(name: str) -> Plan:
    """The plan that is exported to a target."""
    return plans.plan(plans.ENGINES.get(name, ""))


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stand-ins for the engines' programs."""
    folder = tmp_path_factory.mktemp("bin")
    for name in ("vllm", "trtllm-serve", "trtllm-llmapi-launch"):
        path = folder / name
        path.write_text(STAND_IN)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    # SGLang is a module of Python: the stand-in is found first, and runs by its own interpreter.
    python = folder / "python3"
    python.write_text(STAND_IN.replace("/usr/bin/env python3", os.path.realpath("/proc/self/exe")))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    for name in ("vllm", "trtllm-serve", "trtllm-llmapi-launch"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("/usr/bin/env python3", os.path.realpath("/proc/self/exe")))
    return folder


def run_script(path: Path, bin_folder: Path, **more: str) -> dict[str, Any]:
    """What a launch script starts."""
    environment = {"PATH": f"{bin_folder}:/usr/bin:/bin", "MODEL": "some/model", "HEAD_ADDRESS": "node-a", **more}
    done = subprocess.run(["bash", str(path)], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def options_of(argv: list[str]) -> dict[str, str | None]:
    """Options by name, from the first that starts with two dashes on."""
    options: dict[str, str | None] = {}
    name = ""
    for word in argv[1:]:
        if word.startswith("--"):
            name = word
            options[name] = None
        elif name:
            options[name] = word
    return options


@pytest.mark.parametrize("name", TARGETS)
def test_scripts_start_the_engine(name: str, bin_folder: Path, tmp_path: Path) -> None:
    """Every script runs, gives options that the engine knows, and the degrees of the plan."""
    written = export_plan(planned(name), name, tmp_path / "out")
    scripts = sorted((tmp_path / "out").glob("*/node-*.sh"))
    assert [str(path.relative_to(tmp_path / "out")) for path in scripts] == [
        file for file in written.files if file.endswith(".sh")
    ]
    switches = switches_of(name)
    for number, path in enumerate(scripts):
        assert os.access(path, os.X_OK)
        started = run_script(path, bin_folder)
        options = options_of(started["argv"])
        assert set(options) <= switches.options
        given = set(started["env"]) - {"PATH", "PWD", "SHLVL", "_", "LC_CTYPE", *PLACEHOLDERS}
        assert given <= switches.variables | set(PLUGIN)
        text = path.read_text()
        assert all(f"export {each}=" in text for each in given)
        if name == "sglang":
            assert (options["--tp-size"], options["--attn-dp-size"], options["--ep-size"]) == ("4", "4", "4")
            assert (options["--nnodes"], options["--node-rank"]) == ("2", str(number))
            assert options["--dist-init-addr"] == f"node-a:{PORTS['RENDEZVOUS_PORT']}"
            assert options["--init-expert-location"] == str(path.parent / "expert_location.json")
            assert (options["--ep-num-redundant-experts"], options["--ep-dispatch-algorithm"]) == ("4", "static")
            assert "--enable-eplb" not in options
        elif name == "trtllm":
            assert (options["--tp_size"], options["--ep_size"], options["--gpus_per_node"]) == ("4", "4", "2")
            config = yaml.safe_load(Path(str(options["--config"])).read_text())
            assert config["moe_config"]["load_balancer"] == str(path.parent / "moe_load_balancer.yaml")
            assert config["enable_attention_dp"] is True
        else:
            assert (options["--data-parallel-size"], options["--data-parallel-size-local"]) == ("4", "2")
            assert (options["--node-rank"], options["--master-addr"]) == (str(number), "node-a")
            assert ("--headless" in options) == (number > 0) != ("--port" in options)
            assert "--enable-expert-parallel" in options
        if name == "vllm":
            assert json.loads(str(options["--eplb-config"]))["num_redundant_experts"] == 4
            linear = planned(name).roles[0].strategy("linear")
            assert linear is not None
            assert any(f"predicted {linear.tokens_per_s:,.0f} tokens/s instead of" in note for note in written.notes)
            held = load_plan(started["env"]["PLACEMENT_PLAN"])
            assert [role.layers for role in held.roles] == [role.layers for role in planned(name).roles]
        if name == "vllm-ascend":
            held_at = json.loads(str(options["--additional-config"]))["eplb_config"]["expert_map_path"]
            assert held_at == str(path.parent / "expert_map.json")


def test_a_script_asks_for_what_it_needs(bin_folder: Path, tmp_path: Path) -> None:
    """Without the model or the address of node 0 a script says so, and starts nothing."""
    export_plan(planned("sglang"), "sglang", tmp_path / "out")
    script = str(tmp_path / "out" / "aggregated" / "node-0.sh")
    for missing in ("MODEL", "HEAD_ADDRESS"):
        environment = {"PATH": f"{bin_folder}:/usr/bin:/bin", "MODEL": "m", "HEAD_ADDRESS": "a"}
        del environment[missing]
        done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert f"{missing}: is not set; README.md says what it is" in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize(
    "value", ["4", "a b", '{"a": "b"}', "it's", "$MODEL/x y", '{"a": "$MODEL"}', "`id` $(id) $MODEL"]
)
def test_shell_words(value: str) -> None:
    """A word reaches the program as it stands; only variables are filled in."""
    line = f"printf %s {shell_word(value)}"
    done = subprocess.run(["bash", "-c", line], env={"MODEL": "m"}, capture_output=True, text=True, timeout=20)
    assert done.stdout == value.replace("$MODEL", "m")


@pytest.mark.parametrize("name", TARGETS)
def test_readme_and_manifests(name: str, tmp_path: Path) -> None:
    """The README names every script, placeholder and check; manifests start the scripts on as many devices."""
    if name == "trtllm":  # over several OS nodes MPI starts it
        made = plans.plan("trtllm", cluster={**plans.TINY["cluster"], "nodes": 1, "gpus_per_node": 4})
    else:
        made = planned(name)
    export_plan(made, name, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    scripts = sorted((tmp_path / "out").glob("*/node-*.sh"))
    assert all(f"bash aggregated/{path.name}" in text for path in scripts)
    for placeholder in PLACEHOLDERS:
        used = any(f"${{{placeholder}:" in path.read_text() for path in scripts)
        assert (f"- `{placeholder}`" in text) or not used
    assert f"placement export --check aggregated/{FORMATS[name].file} --to {name} --plan plan.json" in text
    for note in LAUNCHERS[name].notes(_site(made, name)):
        assert f"- {note}" in text
    (held,) = yaml.safe_load_all((tmp_path / "out" / "kubernetes.yaml").read_text())
    spec = held["spec"]
    assert held["apiVersion"] == "leaderworkerset.x-k8s.io/v1"
    assert (spec["replicas"], spec["leaderWorkerTemplate"]["size"]) == (1, len(scripts))
    (container,) = spec["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"]
    assert list(container["resources"]["limits"].values()) == [4 // len(scripts)]
    services = yaml.safe_load((tmp_path / "out" / "compose.yaml").read_text())["services"]
    assert [each["command"][1] for each in services.values()] == [f"/placement/aggregated/{p.name}" for p in scripts]


def _site(made: Plan, name: str) -> Any:
    adapted = export._for_engine(made, FORMATS[name])
    return next(iter(export._sites(adapted, FORMATS[name])))


def test_an_engine_is_given_the_largest_batch_where_few_fill_it(bin_folder: Path, tmp_path: Path) -> None:
    prefill, decode = plans.two_roles(planned("vllm")).roles
    batch = decode.split.batch
    decode = decode.model_copy(update={"binds": ("prefill",), "largest_batch": batch + 5})
    export_plan(planned("vllm").model_copy(update={"roles": (prefill, decode)}), "vllm", tmp_path / "out")
    options = options_of(run_script(tmp_path / "out/decode/node-0.sh", bin_folder)["argv"])
    assert options["--max-num-seqs"] == str(batch + 5)


@pytest.mark.parametrize("name", ["sglang", "vllm", "trtllm"])
def test_roles_apart(name: str, bin_folder: Path, tmp_path: Path) -> None:
    """Prefill and decode have a folder each, with the engine's own switches for it."""
    made = plans.two_roles(planned(name))
    export_plan(made, name, tmp_path / "out")
    for role in ("prefill", "decode"):
        options = options_of(run_script(tmp_path / "out" / role / "node-0.sh", bin_folder)["argv"])
        if name == "sglang":
            assert options["--disaggregation-mode"] == role
            assert options["--deepep-mode"] == {"prefill": "normal", "decode": "low_latency"}[role]
            assert options.get("--disaggregation-bootstrap-port") == ("8998" if role == "prefill" else None)
            assert ("--max-running-requests" in options) == (role == "decode")
        elif name == "vllm":
            told = json.loads(str(options["--kv-transfer-config"]))
            started = run_script(tmp_path / "out" / role / "node-1.sh", bin_folder, NODE_ADDRESS="node-b")
            assert started["env"]["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "node-b"
            assert ("--max-num-seqs" in options) == (role == "decode")
            assert told["kv_role"] == {"prefill": "kv_producer", "decode": "kv_consumer"}[role]
        else:
            config = yaml.safe_load((tmp_path / "out" / role / "config.yaml").read_text())
            assert config["cache_transceiver_config"] == {"backend": "DEFAULT"}
        own = load_plan(tmp_path / "out" / role / "plan.json")
        assert [each.role for each in own.roles] == [role]
        map_file = tmp_path / "out" / role / FORMATS[name].file
        assert check_export(made, map_file, name, role=role).gpus == 4
    with pytest.raises(ParameterError, match="name one of them"):
        check_export(made, map_file, name)
    # Where the engine keeps a prefix cache unasked, the plan says what it counts on.
    prefill, decode = (tmp_path / "out" / "README.md").read_text().split("\n## ")[-2:]
    told = "The prefix cache is on by default"
    assert f"`{LAUNCHERS[name].no_prefix_cache}`" in prefill
    assert told in prefill
    assert "nothing there (`--prefix-hit` says how much)" in prefill
    assert (told in decode) == (name == "vllm")


def test_stages(bin_folder: Path, tmp_path: Path) -> None:
    """Stage cuts reach each engine in its own way, as many numbers as stages, summing to the layers."""
    pins = {"tp": 1, "ep": 2, "pp": 2, "dp": 2, "batch": 8}
    for name, variable in (
        ("sglang", "SGLANG_PP_LAYER_PARTITION"),
        ("vllm", "VLLM_PP_LAYER_PARTITION"),
        ("trtllm", ""),
    ):
        made = plans.plan(plans.ENGINES[name], pins=pins, redundant=0)
        export_plan(made, name, tmp_path / name)
        wanted = [stage.layers for stage in made.roles[0].stages]
        assert sum(wanted) == 3
        if variable:
            started = run_script(tmp_path / name / "aggregated" / "node-0.sh", bin_folder)
            assert started["env"][variable] == ",".join(map(str, wanted))
        else:
            config = yaml.safe_load((tmp_path / name / "aggregated" / "config.yaml").read_text())
            assert config["pp_partition"] == wanted


def test_what_is_ignored_in_silence_is_said(tmp_path: Path) -> None:
    """TensorRT-LLM without attention data parallelism, and any engine without expert parallelism."""
    alone = plans.plan("trtllm", pins={"tp": 4, "ep": 4, "pp": 1, "dp": 1, "batch": 8}, redundant=0)
    notes = export_plan(alone, "trtllm", tmp_path / "alone").notes
    assert any("Without attention data parallelism (DP 1) TensorRT-LLM ignores" in note for note in notes)
    assert "moe_config" not in yaml.safe_load((tmp_path / "alone" / "aggregated" / "config.yaml").read_text())
    notes = export_plan(planned("trtllm"), "trtllm", tmp_path / "odd", architecture="OddForCausalLM").notes
    assert any("OddForCausalLM is not listed" in note for note in notes)
    small = plans.plan("sglang", pins={"tp": 1, "ep": 1, "pp": 1, "dp": 1, "batch": 8}, redundant=0)
    written = export_plan(small, "sglang", tmp_path / "small")
    assert any("no map is written" in note for note in written.notes)
    assert not any(file.endswith("expert_location.json") for file in written.files)


@pytest.mark.parametrize("tp", [1, 2, 8])
@pytest.mark.parametrize("pp", [1, 2, 3])
@pytest.mark.parametrize("dp", [1, 3, 9, 16])
def test_os_nodes_part_instances_evenly(tp: int, pp: int, dp: int) -> None:
    """Every OS node holds whole stages or equal parts of one, and whole attention ranks or equal parts of one."""
    split = SimpleNamespace(gpus_per_instance=tp * pp * dp, tp=tp, pp=pp, dp=dp)
    role = SimpleNamespace(split=SimpleNamespace(split=lambda: split), largest_batch=None)
    for most in (4, 8):
        held = SimpleNamespace(cluster=SimpleNamespace(os_node_gpus=most))
        site = Site(role, held, "", "")  # type: ignore[arg-type]
        gpus = site.node_gpus
        assert most % gpus == 0
        assert gpus * site.nodes == tp * pp * dp
        assert gpus % (tp * dp) == 0 or (tp * dp) % gpus == 0
        assert gpus % (tp * pp) == 0 or (tp * pp) % gpus == 0


def test_stock_vllm_orders(bin_folder: Path, tmp_path: Path) -> None:
    """A map that is an order of stock vLLM needs no plug-in."""
    made = plans.plan(plans.ENGINES["vllm"], redundant=0)
    (role,) = made.roles
    for name, order in (("linear", range(8)), ("round_robin", [0, 4, 1, 5, 2, 6, 3, 7])):
        layers = tuple(layer.model_copy(update={"physical_to_logical": tuple(order)}) for layer in role.layers)
        plan = made.model_copy(update={"roles": (role.model_copy(update={"layers": layers}),)})
        export_plan(plan, "vllm", tmp_path / name)
        started = run_script(tmp_path / name / "aggregated" / "node-0.sh", bin_folder)
        assert options_of(started["argv"])["--expert-placement-strategy"] == name
        assert "PLACEMENT_EPLB" not in started["env"]


@pytest.mark.parametrize("name", FORMATS)
def test_exported_maps_are_the_plans(name: str, tmp_path: Path) -> None:
    """Every format checks, and gives the plan's figures to the digit when it is evaluated in the plan's place."""
    made = planned(name if name in plans.ENGINES else "generic")
    written = export_plan(made, name, tmp_path / "out", architecture="MixtralForCausalLM")
    path = tmp_path / "out" / "aggregated" / FORMATS[name].file
    assert written.files[0] == f"aggregated/{FORMATS[name].file}"
    compared = check_export(made, path, name)
    assert (compared.layers, compared.gpus, compared.slots) == (2, 4, 24)
    again = load_plan(tmp_path / "out" / "plan.json")
    assert again.roles[0].layers == made.roles[0].layers
    assert again.witness_bytes() == made.witness_bytes() is not None
    judged = evaluate_plan(again, _trace(tmp_path), current=path)
    figures = {row.record.name: row.record for row in judged.role().rows}
    own = judged.role().own
    assert own is not None
    assert figures["current"].model_copy(update={"name": own.name}) == own


def _trace(folder: Path) -> Path:
    rng = np.random.default_rng(5)
    ids = np.argsort(rng.random((2, 120, 8)) * rng.random(8), axis=2)[:, :, :2].astype(np.uint8)
    np.savez_compressed(folder / "a.npz", topk_ids=ids, seq_lens=np.array([30, 30, 40, 20]))
    return folder / "a.npz"


def test_a_map_with_other_redundancy_is_evaluated(tmp_path: Path) -> None:
    """Uneven slots and redundancy in some layers, as omni-infer has them, are scored as they run."""
    made = planned("generic")
    pattern = np.zeros((4, 2, 8), dtype=np.int32)
    for gpu in range(4):
        pattern[gpu, :, 2 * gpu : 2 * gpu + 2] = 1
    linear = tmp_path / "linear.npy"
    np.save(linear, pattern)
    pattern[0, 1, 7] = 1  # one redundant expert, in one layer
    more = tmp_path / "more.npy"
    np.save(more, pattern)
    trace = _trace(tmp_path)
    rows = [
        next(row.record for row in evaluate_plan(made, trace, current=path).role().rows if row.record.name == "current")
        for path in (linear, more)
    ]
    # A copy on another node saves messages: there is less to send, and one GPU more to choose.
    first, second = rows
    assert first.remote_nodes_per_token is not None
    assert second.remote_nodes_per_token is not None
    assert second.remote_nodes_per_token < first.remote_nodes_per_token
    with pytest.raises(ParameterError, match="has 2 slots on GPU 0, the plan 3 on each"):
        migrate_plan(made, [trace], current=linear)


def test_migration_begins_at_what_runs(tmp_path: Path) -> None:
    """The running placement is the engine's file, not the plan's."""
    made, other = planned("generic"), planned("vllm")
    export_plan(other, "vllm", tmp_path / "out")
    path = tmp_path / "out" / "aggregated" / "expert_map.json"
    told = migrate_plan(made, [_trace(tmp_path)], current=path, max_moves=24, budget=Budget(0.1), workers=1)
    assert told.plan is not None
    running = told.plan.roles[0].strategy("running")
    assert running is not None
    assert running.placements == tuple(
        tuple(e for on in row for e in on) for row in map_of(other.roles[0], other.scenario.spec).rows
    )
    assert all(check.passed is not False for check in verify_plan(told.plan, []))


def test_a_plan_of_another_engine(tmp_path: Path) -> None:
    """It is exported where the engine loads its split, and refused with the rule where it does not."""
    told = export_plan(planned("vllm"), "sglang", tmp_path / "out").notes
    assert told[0].startswith("planned for vllm 0.33.0")
    # The plan as it was made, whose figures are of its own engine; what a plug-in reads is of the engine that runs.
    assert load_plan(tmp_path / "out" / "plan.json") == planned("vllm")
    assert load_plan(tmp_path / "out" / "aggregated" / "plan.json").engine.name == "sglang"
    # SGLang's default backend gathers every token, which is said; another can be asked for.
    text = (tmp_path / "out" / "README.md").read_text()
    assert "every token goes to every GPU: expert placement buys balance alone" in text
    export_plan(planned("vllm"), "sglang", tmp_path / "deepep", engine="sglang:deepep")
    assert "--moe-a2a-backend deepep" in (tmp_path / "deepep" / "aggregated" / "node-0.sh").read_text()
    with pytest.raises(ParameterError, match="trtllm is not sglang"):
        export_plan(planned("vllm"), "sglang", tmp_path / "wrong", engine="trtllm")
    odd = plans.plan(pins={"tp": 2, "ep": 4, "pp": 1, "dp": 2, "batch": 8})
    with pytest.raises(InputError, match="tp 2 and dp 2 are both more than 1"):
        export_plan(odd, "trtllm", tmp_path / "odd")
    planned_shares = plans.plan(dispatch="planned")
    for name in ("sglang", "omni"):
        with pytest.raises(ParameterError, match="planned dispatch"):
            export_plan(planned_shares, name, tmp_path / name)
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("planned_for", ["sglang", "generic", "vllm"])
def test_figures_are_said_to_be_of_the_engine_that_was_planned_for(planned_for: str, tmp_path: Path) -> None:
    """In whatever of the folder names the engine that runs beside a figure, and in what the command tells."""
    made = plans.two_roles(planned(planned_for))
    told = export_plan(made, "vllm", tmp_path / "out").notes
    summary = (tmp_path / "out" / "README.md").read_text().partition("\n## ")[0]
    read = load_plan(tmp_path / "out" / "decode" / "plan.json")
    assert made.engine.label in summary
    assert read.engine.label in summary
    foreign = f"lanned for {made.engine.label}: its figures are of that engine; solve --engine vllm:"
    others = planned_for != "vllm"
    texts = (summary, told[0], "".join(read.provenance.cautions[:1]))
    assert [foreign in text for text in texts] == [others] * 3
    assert f"Planned for {read.engine.label}" not in summary or not others
    # Each role's tokens/s are its own; those of the plan are said beside them.
    assert "of this role alone" in summary
    assert f"Together the roles serve {made.predicted.tokens_per_s.value:,.0f} tokens/s" in summary


def test_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of a folder that can't be written whole, and nothing that is there is touched."""
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("kept")
    for out, told in ((full, "is not empty"), (full / "mine", "is a file"), (tmp_path / "no" / "out", "is not there")):
        with pytest.raises(ParameterError, match=told):
            export_plan(planned("sglang"), "sglang", out)
    with pytest.raises(ParameterError, match="architecture"):
        export_plan(planned("vllm"), "vllm-hygon", tmp_path / "out")
    with pytest.raises(ParameterError, match="next_token_layers"):
        export_plan(planned("vllm"), "vllm", tmp_path / "out", next_token_layers=1)
    write = Path.write_bytes

    def full_disk(path: Path, data: bytes) -> int:
        if path.name == "README.md":
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(InputError, match="can't be written: No space left on device"):
        export_plan(planned("sglang"), "sglang", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
    assert (full / "mine").read_text() == "kept"
    monkeypatch.undo()
    (tmp_path / "empty").mkdir()
    export_plan(planned("sglang"), "sglang", tmp_path / "empty")
    assert (tmp_path / "empty" / "README.md").is_file()


def test_the_command(tmp_path: Path, call: Callable[..., Done]) -> None:
    """Files on stdout, notes on stderr; a check that fails exits with 6 and names the first difference."""
    plan_file, out = str(tmp_path / "plan.json"), str(tmp_path / "out")
    planned("sglang").save(plan_file)
    done = call("export", "--plan", plan_file, "--to", "sglang", "--out", out)
    assert done.code == 0
    assert done.out.splitlines()[0] == f"{out}/aggregated/expert_location.json"
    assert "SGLang crashes on any other key" in done.err
    held = f"{out}/aggregated/expert_location.json"
    done = call("export", "--plan", plan_file, "--to", "sglang", "--check", held)
    assert (done.code, "holds the plan's map" in done.out) == (0, True)
    data = json.loads(Path(held).read_text())
    row = data["physical_to_logical_map"][2]
    row[0], row[-1] = row[-1], row[0]
    Path(held).write_text(json.dumps(data))
    done = call("export", "--plan", plan_file, "--to", "sglang", "--check", held)
    assert done.code == 6
    assert "layer 2, GPU 0: holds experts" in done.err
    assert done.err.count("\n") == 1
    for wrong in ([], ["--out", out, "--check", held], ["--out", out]):
        done = call("export", "--plan", plan_file, "--to", "sglang", *wrong)
        assert done.code == 2
        assert done.err.count("\n") == 1
    done = call("export", "--plan", plan_file, "--to", "deepseek", "--out", out + "2", "--json")
    assert json.loads(done.out)["files"][0] == "aggregated/eplb.npz"
    assert call("export", "--plan", plan_file, "--to", "nothing", "--out", out).code == 2


def test_names_of_the_command() -> None:
    """The names that --help shows are those that are written."""
    assert (*FORMATS, export.MEGATRON) == command.FORMATS


def test_an_exporter_writes_no_other_option() -> None:
    """What is not in the lists can't be written."""
    for name in LAUNCHERS:
        with pytest.raises(ValueError, match="is no known option"):
            switches_of(name).option("--fast", reason="")
        with pytest.raises(ValueError, match="is no known variable"):
            switches_of(name).variable("NCCL_FAST", 1, reason="")


def _lines(path: Path) -> set[str]:
    return set(path.read_text().split())


def test_lists_are_the_engines_own(shared_dir: Path) -> None:
    """Every variable, and every option of vLLM but three of its server, stands in the engines' lists."""
    folder = shared_dir / "engines"
    nccl = _lines(folder / "nccl_2.30.7.txt")
    vllm = switches_of("vllm")
    assert vllm.options - _lines(folder / "vllm_0.33.0_cli.txt") == {"--headless", "--host", "--port"}
    assert vllm.variables <= _lines(folder / "vllm_0.33.0_envs.txt") | nccl
    assert switches_of("vllm-ascend").options <= vllm.options | {"--additional-config"}
    assert "--additional-config" in _lines(folder / "vllm_0.33.0_cli.txt")
    assert switches_of("sglang").variables <= _lines(folder / "sglang_0.5.23_environ.txt") | nccl | {
        "SGLANG_PP_LAYER_PARTITION"  # read by os.getenv, beside the engine's list
    }


def test_options_of_sglang(sglang_wheel: Path) -> None:
    """Every option is a field of SGLang's own argument classes, or stands there as another name of one."""
    options, text = set(), ""
    for path in (sglang_wheel / "sglang/srt/arg_groups/fields").glob("*.py"):
        text += path.read_text()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                options.add("--" + node.target.id.replace("_", "-"))
    assert {name for name in switches_of("sglang").options - options if f'"{name}"' not in text} == set()
    assert "SGLANG_PP_LAYER_PARTITION" in (sglang_wheel / "sglang/srt/distributed/utils.py").read_text()


def test_options_of_vllm(vllm_wheel: Path) -> None:
    """What its lists lack is of its server."""
    text = "".join(path.read_text() for path in (vllm_wheel / "vllm/entrypoints").rglob("cli_args.py"))
    assert '"--headless"' in text
    assert "host: str" in text
    assert "port: int" in text


def test_vllm_validates_the_command(vllm_wheel: Path, bin_folder: Path, tmp_path: Path) -> None:
    """vLLM's own ParallelConfig takes what a script gives it."""
    pytest.importorskip("torch")
    export_plan(planned("vllm"), "vllm", tmp_path / "out")
    given = options_of(run_script(tmp_path / "out" / "aggregated" / "node-0.sh", bin_folder)["argv"])
    taken = {
        "--tensor-parallel-size": int, "--data-parallel-size": int, "--data-parallel-size-local": int, "--nnodes": int,
        "--node-rank": int, "--master-addr": str, "--all2all-backend": str, "--master-port": int,
        "--enable-expert-parallel": None, "--enable-eplb": None,
    }  # fmt: skip
    options = {name[2:].replace("-", "_"): True if kind is None else kind(given[name]) for name, kind in taken.items()}
    read = engine("vllm_reader", vllm_wheel, {"options": options, "eplb": json.loads(str(given["--eplb-config"]))})
    assert read["redundant"] == 4
    assert read["parallel"] == options


def test_sglang_reads_an_exported_map(sglang_wheel: Path, tmp_path: Path) -> None:
    """SGLang's own reader gives the plan's slots."""
    pytest.importorskip("torch")
    export_plan(planned("sglang"), "sglang", tmp_path / "out")
    path = tmp_path / "out" / "aggregated" / "expert_location.json"
    asked = {"file": str(path), "layers": 3, "experts": 8, "redundant": 4, "ep": 4, "nnodes": 2, "backend": "deepep"}
    rows = engine("sglang_reader", sglang_wheel, asked)["map"]
    for layer in planned("sglang").roles[0].layers:
        assert rows[layer.layer] == list(layer.physical_to_logical)


def test_a_training_plan(tmp_path: Path) -> None:
    """Megatron gets degrees, batches and the cut; nothing that serves takes the plan, and no schedule that it lacks."""
    training = {
        "kind": "training", "name": "tiny_train", "global_batch": 16, "sequence": 64, "schedule": "1f1b",
    }  # fmt: skip
    model = {**plans.TINY["model"], "layers": 7}
    pins = {"tp": 1, "ep": 2, "pp": 2, "dp": 2, "batch": 8}
    made = plans.plan(workload=training, model=model, pins=pins, redundant=0)
    written = export_plan(made, "megatron", tmp_path / "out")
    assert written.files[0] == "training/megatron.sh"
    show = 'source "$1"; printf "%s\\n" "${PLACEMENT_ARGS[@]}"'
    script = str(tmp_path / "out" / "training" / "megatron.sh")
    done = subprocess.run(["bash", "-c", show, "-", script], capture_output=True, text=True, check=True, timeout=20)
    options = options_of(["", *done.stdout.splitlines()])
    assert set(options) <= switches_of("megatron").options
    assert (options["--pipeline-model-parallel-size"], options["--expert-model-parallel-size"]) == ("2", "2")
    cut = str(options["--pipeline-model-parallel-layout"])
    assert (cut[0], cut[-1]) == ("E", "L")
    layers = [int(piece.strip("EL").replace("t*", "").replace("t", "1")) for piece in cut.split("|")]
    assert layers == [stage.layers for stage in made.roles[0].stages]
    with pytest.raises(ParameterError, match="sglang serves, and the plan trains; export it to megatron"):
        export_plan(made, "sglang", tmp_path / "serving")
    with pytest.raises(InputError, match="serves, and Megatron trains"):
        export_plan(planned("vllm"), "megatron", tmp_path / "training")
    folded = plans.plan(workload={**training, "schedule": "dualpipe_v"}, model=model, pins=pins, redundant=0)
    with pytest.raises(InputError, match="plan with schedule 1f1b or interleaved"):
        export_plan(folded, "megatron", tmp_path / "folded")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_changed_file_fails(tmp_path: Path) -> None:
    """A check names the layer and GPU of the first difference."""
    made = planned("trtllm")
    export_plan(made, "trtllm", tmp_path / "out")
    path = tmp_path / "out" / "aggregated" / "moe_load_balancer.yaml"
    data = yaml.safe_load(path.read_text())
    data["initial_global_assignments"][1].reverse()
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(CheckFailedError, match="layer 1, GPU 0: holds experts"):
        check_export(made, path, "trtllm")


def _many(name: str) -> Plan:
    """Three prefill instances of two GPUs and four decode instances of one, over nodes of two or of four GPUs."""
    cluster = {**plans.TINY["cluster"], "nodes": 3, "gpus_per_node": 4, "gpus_per_os_node": 2}
    made = plans.plan(plans.ENGINES[name], cluster=cluster, pins={"tp": 1, "ep": 2, "pp": 1, "dp": 2, "batch": 8})
    (role,) = made.roles
    small = plans.plan(
        plans.ENGINES[name], cluster=cluster, pins={"tp": 1, "ep": 1, "pp": 1, "dp": 1, "batch": 8}, redundant=0
    ).roles[0]
    split = {"prefill": (role, 3), "decode": (small, 4)}
    roles = tuple(
        held.model_copy(update={"role": which, "split": held.split.model_copy(update={"instances": count})})
        for which, (held, count) in split.items()
    )
    nodes = (
        NodesRecord(pool="tiny_cluster", nodes=1, holds=(HeldRecord(instance=0, gpus=4, count=2),)),
        NodesRecord(
            pool="tiny_cluster", nodes=1,
            holds=(HeldRecord(instance=0, gpus=2, count=1), HeldRecord(instance=1, gpus=2, count=2)),
        ),
        NodesRecord(pool="tiny_cluster", nodes=1, holds=(HeldRecord(instance=1, gpus=2, count=2),)),
    )  # fmt: skip
    return made.model_copy(update={"mode": "disaggregated", "roles": roles, "nodes": nodes})


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "instances.csv").open() as opened:
        return list(csv.DictReader(opened))


@pytest.mark.parametrize("name", ["sglang", "vllm", "trtllm"])
def test_many_instances_have_machines_gpus_and_ports_of_their_own(name: str, bin_folder: Path, tmp_path: Path) -> None:
    """Each instance's script takes its seat; no two share a GPU or a port of a machine; the router names them all."""
    out = tmp_path / "out"
    export_plan(_many(name), name, out)
    rows = _rows(out)
    assert [(row["role"], row["instance"]) for row in rows] == [
        *(("prefill", str(i)) for i in range(3)), *(("decode", str(i)) for i in range(4)),
    ]  # fmt: skip
    (out / "hosts.txt").write_text("".join(f"machine-{i}\n" for i in range(5)))
    assert {row["host"] for row in rows} == set("01234")
    devices, served = set(), set()
    for row in rows:
        role, host = row["role"], row["host"]
        started = run_script(out / role / "node-0.sh", bin_folder, INSTANCE=row["instance"], HEAD_ADDRESS="")
        env, options = started["env"], options_of(started["argv"])
        assert (env["HEAD_ADDRESS"], env["NODE_ADDRESS"]) == (f"machine-{host}",) * 2
        gpus = env["CUDA_VISIBLE_DEVICES"].split(",")
        assert len(gpus) == (2 if role == "prefill" else 1)
        devices |= {(host, gpu) for gpu in gpus}
        served.add((f"machine-{host}", str(options["--port"])))
        assert env["PORT"] == options["--port"]
    assert len(devices) == 3 * 2 + 4
    assert all(0 <= int(gpu) < 2 for _, gpu in devices)
    assert len(served) == 7
    environment = {"PATH": f"{bin_folder}:/usr/bin:/bin", "PROXY": "proxy.py"}
    done = subprocess.run(["bash", str(out / "router.sh")], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    argv = json.loads(done.stdout)["argv"]
    told = Path(argv[-1]).read_text() if name == "trtllm" else " ".join(argv)
    if name == "vllm":
        options = {key: [] for key in ("prefiller-hosts", "prefiller-ports", "decoder-hosts", "decoder-ports")}
        for word in argv[argv.index("--prefiller-hosts") :]:
            if word.startswith("--"):
                at = options[word[2:]]
            else:
                at.append(word)
        pairs = [*zip(options["prefiller-hosts"], options["prefiller-ports"], strict=True)]
        pairs += zip(options["decoder-hosts"], options["decoder-ports"], strict=True)
        assert (len(pairs), set(pairs)) == (7, served)
    else:
        assert all(f"{host}:{port}" in told for host, port in served)
    if name == "sglang":
        assert argv[1:4] == ["-m", "sglang_router.launch_router", "--pd-disaggregation"]
        assert (argv.count("--prefill"), argv.count("--decode")) == (3, 4)
        assert argv[argv.index("--prefill") + 2] == "8998"
    if name == "trtllm":
        assert yaml.safe_load(told)["context_servers"]["num_instances"] == 3
        assert yaml.safe_load((out / "prefill" / "config.yaml").read_text())["disable_overlap_scheduler"] is True
    (out / "hosts.txt").write_text("machine-0\n")
    done = subprocess.run(["bash", str(out / "router.sh")], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, f"{out / 'hosts.txt'}: lacks host 4\n")
    (out / "hosts.txt").unlink()
    environment |= {"PREFILL": "10.0.0.1 10.0.0.2", "DECODE": "10.0.0.3"}
    done = subprocess.run(["bash", str(out / "router.sh")], env=environment, capture_output=True, text=True, timeout=60)
    argv = json.loads(done.stdout)["argv"]
    told = Path(argv[-1]).read_text() if name == "trtllm" else " ".join(argv)
    assert all(f"10.0.0.{i}" in told for i in (1, 2, 3))
    text = (out / "README.md").read_text()
    assert "| 0 | 0 | prefill 0 (GPUs 0 to 1) |" in text
    assert "| 3 | 1 | decode 0 to 1 (GPUs 0 to 1) |" in text
    assert "one a line: 5 lines" in text
    services = yaml.safe_load((out / "compose.yaml").read_text())["services"]
    assert list(services) == ["prefill-0", "decode-0", "router"]
    assert services["router"]["command"] == ["bash", "/placement/router.sh"]
    assert services["decode-0"]["environment"]["INSTANCE"] == "${INSTANCE:-}"


def test_a_machine_starts_what_it_holds(bin_folder: Path, tmp_path: Path) -> None:
    out, logs = tmp_path / "out", tmp_path / "logs"
    logs.mkdir()
    export_plan(_many("sglang"), "sglang", out)
    (out / "hosts.txt").write_text("".join(f"machine-{i}\n" for i in range(5)))
    environment = {"PATH": f"{bin_folder}:/usr/bin:/bin", "MODEL": "m"}
    args = ["bash", str(out / "host.sh"), "3"]
    done = subprocess.run(args, env=environment, cwd=logs, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in logs.iterdir()) == ["decode-0-0.log", "decode-1-0.log"]
    env = json.loads((logs / "decode-1-0.log").read_text())["env"]
    assert (env["CUDA_VISIBLE_DEVICES"], env["PORT"]) == ("1", "8001")
    for unknown in ("5", "three", "role"):
        args[2] = unknown
        done = subprocess.run(args, env=environment, cwd=logs, capture_output=True, text=True, timeout=60)
        told = f"host.sh: machine {unknown} holds nothing; take one of 0 to 4\n"
        assert (done.returncode, done.stderr, done.stdout) == (2, told, "")
    assert len(list(logs.iterdir())) == 2
    args[2] = "3"
    (out / "decode" / "node-0.sh").rename(out / "decode" / "kept.sh")
    done = subprocess.run(args, env=environment, cwd=logs, capture_output=True, text=True, timeout=60)
    assert done.returncode == 127
    assert sorted(done.stderr.splitlines()) == [
        f"host.sh: decode {i} ended with exit code 127; see {logs}/decode-{i}-0.log" for i in (0, 1)
    ]
    (out / "decode" / "kept.sh").rename(out / "decode" / "node-0.sh")
    script = ["bash", str(out / "decode" / "node-0.sh")]
    for more, told in (({"INSTANCE": "9"}, "has no instance 9 of decode"), ({"INSTANCE": "0"}, "hosts.txt: is not")):
        if "hosts" in told:
            (out / "hosts.txt").unlink()
        done = subprocess.run(script, env=environment | more, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert told in done.stderr


def test_host_says_what_is_wrong_on_the_screen(bin_folder: Path, tmp_path: Path) -> None:
    """Bad usage exits with 2, in one line; an engine that fails names its log while others run on; TERM reaches all."""
    out = tmp_path / "out"
    export_plan(_many("sglang"), "sglang", out)
    environment = {"PATH": f"{bin_folder}:/usr/bin:/bin", "MODEL": "m"}

    def host(*args: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", str(out / "host.sh"), *args], env=environment, cwd=tmp_path, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        return done.returncode, done.stderr

    assert host() == (2, "usage: host.sh N, the number of the machine in hosts.txt, from 0 on\n")
    assert host("3") == (2, f"{out / 'hosts.txt'}: is not there; write one machine a line, as README.md says\n")
    assert not list(tmp_path.glob("*.log"))
    (out / "hosts.txt").write_text("".join(f"machine-{i}\n" for i in range(5)))
    seats = (out / "instances.csv").read_text().splitlines(keepends=True)
    (out / "instances.csv").write_text("".join(row for row in seats if row.split(",")[3] != "1"))
    assert host("1") == (2, "host.sh: machine 1 holds nothing; take one of 0, 2 to 4\n")
    # One of two fails at once; the other runs until it is stopped.
    (out / "decode" / "node-0.sh").write_text(
        "[ $INSTANCE = 0 ] || exit 7; trap 'kill $!; echo stopped; exit' TERM; sleep 20 & echo up; wait; echo over\n"
    )
    with subprocess.Popen(
        ["bash", str(out / "host.sh"), "3"], env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        told = running.stderr.readline()
        assert told == f"host.sh: decode 1 ended with exit code 7; see {tmp_path}/decode-1-0.log\n"
        log = tmp_path / "decode-0-0.log"
        for _ in range(1000):
            if log.exists() and log.read_text() == "up\n":
                break
            time.sleep(0.01)
        running.terminate()
        # Open until the last that was started has ended.
        assert running.stderr.read() == ""
    assert log.read_text() == "up\nstopped\n"


def test_instances_over_several_machines(tmp_path: Path) -> None:
    """Without a list of nodes instances fill machines in order; all nodes of one meet at its node 0."""
    made = planned("sglang")
    (role,) = made.roles
    split = role.split.model_copy(update={"instances": 2})
    export_plan(
        made.model_copy(update={"roles": (role.model_copy(update={"split": split}),)}), "sglang", tmp_path / "out"
    )
    rows = [(row["instance"], row["node"], row["host"], row["head"]) for row in _rows(tmp_path / "out")]
    assert rows == [("0", "0", "0", "0"), ("0", "1", "1", "0"), ("1", "0", "2", "2"), ("1", "1", "3", "2")]
    held = next(yaml.safe_load_all((tmp_path / "out" / "kubernetes.yaml").read_text()))
    assert held["spec"]["replicas"] == 2


def test_vllm_carries_caches_of_stages_as_it_can(bin_folder: Path, tmp_path: Path) -> None:
    """Its reading connector finds those of one stage; the writing one finds all, and decodes in one stage only."""
    pins = {"tp": 1, "ep": 2, "pp": 2, "dp": 2, "batch": 8}
    staged = plans.two_roles(plans.plan(plans.ENGINES["vllm"], pins=pins, redundant=0))
    with pytest.raises(InputError, match=r"decode instances: have 2 stages.*--decode-pp 1"):
        export_plan(staged, "vllm", tmp_path / "refused")
    flat = plans.two_roles(planned("vllm")).roles[1]
    export_plan(staged.model_copy(update={"roles": (staged.roles[0], flat)}), "vllm", tmp_path / "out")
    for role in ("prefill", "decode"):
        options = options_of(run_script(tmp_path / "out" / role / "node-0.sh", bin_folder)["argv"])
        assert json.loads(str(options["--kv-transfer-config"]))["kv_connector"] == "NixlPushConnector"
