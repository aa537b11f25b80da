"""Files of expert maps: written and read back, golden, those that engines wrote, and those that nobody should load."""

from __future__ import annotations

import io
import json
import random
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.engines.content import MAX_TEXT_BYTES, read_content
from placement.engines.expert_map import ExpertMap, ModelLayers
from placement.engines.maps.base import Extras
from placement.engines.maps.registry import FORMATS, format_of, read_map
from placement.errors import InputError, MissingExtraError, ParameterError
from tests.engines.drawn import maps

EXTRAS = Extras(architecture="DeepseekV3ForCausalLM")
GOLDEN = Path(__file__).parent / "golden"
#: 4 hidden layers of which the first is dense, 6 experts, 2 GPUs of 4 slots.
MODEL = ModelLayers(4, (1, 2, 3), (6, 6, 6))
MAP = ExpertMap(
    (1, 2, 3),
    (((0, 1, 2, 5), (3, 4, 5, 0)), ((5, 4, 3, 2), (1, 0, 2, 3)), ((0, 2, 4, 1), (1, 3, 5, 0))),
)


def _write(folder: Path, name: str, experts: ExpertMap, model: ModelLayers) -> Path:
    path = folder / FORMATS[name].file
    path.write_bytes(FORMATS[name].write(experts, model, EXTRAS))
    return path


@pytest.mark.parametrize("name", FORMATS)
@given(drawn=maps())
def test_round_trip(name: str, drawn: tuple[ExpertMap, ModelLayers], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every format gives back what was written, and is recognized."""
    experts, model = drawn
    path = _write(tmp_path_factory.getbasetemp(), name, experts, model)
    assert format_of(read_content(path)).name == name
    read = read_map(path, model, experts.gpus)
    assert read.experts.first_difference(experts) == ""
    if name != "omni":  # a pattern of 0 and 1 has no order
        assert read.experts == experts


@settings(max_examples=100)
@given(drawn=maps(uneven=True), name=st.sampled_from(sorted(FORMATS)))
def test_uneven_slots(
    drawn: tuple[ExpertMap, ModelLayers], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What a format can't say is filled up with copies that serve on the same GPU, or refused with the reason."""
    experts, model = drawn
    try:
        path = _write(tmp_path_factory.getbasetemp(), name, experts, model)
    except InputError as error:
        told = str(error)
    else:
        told = ""
    if told:
        assert "no expert of its own" in told
        return
    read = read_map(path, model, experts.gpus).experts
    plain, repeats = read.without_repeats()
    assert plain.first_difference(experts) == ""
    assert repeats == sum(len(held) for row in read.rows for held in row) - sum(
        len(held) for row in experts.rows for held in row
    )
    if name == "omni":
        assert repeats == 0
        return
    for i in range(len(read.layers)):
        assert read.width(i) == max(len(held) for row in experts.rows for held in row)
        # A filled slot repeats an expert that no other GPU holds: its GPU serves it whichever copy is taken.
        for gpu, held in enumerate(read.rows[i]):
            for expert in {one for one in held if held.count(one) > 1}:
                assert [g for g, other in enumerate(read.rows[i]) if expert in other] == [gpu]


@pytest.mark.parametrize("name", FORMATS)
def test_golden_files(name: str, tmp_path: Path) -> None:
    """The files are byte for byte those of the repository, and these read as the map."""
    made = FORMATS[name]
    golden = GOLDEN / f"{name}{Path(made.file).suffix}"
    if golden.suffix == ".npz":  # compressed by whatever zlib is there: the arrays count
        path = _write(tmp_path, name, MAP, MODEL)
        with np.load(golden) as wanted, np.load(path) as found:
            assert sorted(wanted.files) == sorted(found.files)
            assert all(np.array_equal(wanted[key], found[key]) for key in wanted.files)
    else:
        assert made.write(MAP, MODEL, EXTRAS) == golden.read_bytes()
    assert read_map(golden, MODEL, 2, name).experts.first_difference(MAP) == ""


def test_next_token_rows() -> None:
    """TensorRT-LLM looks up rows of next-token layers, too; reading leaves them out and says so."""
    text = FORMATS["trtllm"].write(MAP, MODEL, Extras(next_token_layers=1)).decode()
    assert "  4: [0, 1, 2, 3, 4, 5, 0, 1]" in text.splitlines()


def test_a_map_is_of_its_model(tmp_path: Path) -> None:
    """Layers that are not there, or numbered as another engine does, are refused by name."""
    sglang = _write(tmp_path, "sglang", MAP, MODEL)
    vllm = _write(tmp_path, "vllm", MAP, MODEL)
    trtllm = _write(tmp_path, "trtllm", MAP, MODEL)
    all_moe = ModelLayers(4, (0, 1, 2, 3), (6,) * 4)
    ascend_like = ModelLayers(4, (0, 1, 2), (6,) * 3)
    with pytest.raises(InputError, match="3 rows for 4 MoE layers"):
        read_map(vllm, all_moe, 2)
    with pytest.raises(InputError, match="lacks layer 0, the first of 1 MoE layers"):
        read_map(trtllm, ascend_like, 2)
    rows = json.loads(sglang.read_text())["physical_to_logical_map"]
    sglang.write_text(json.dumps({"physical_to_logical_map": rows[1:]}))
    with pytest.raises(InputError, match="4 hidden layers: these are those of the MoE layers alone"):
        read_map(sglang, MODEL, 2)
    vllm.write_text(json.dumps(rows))
    with pytest.raises(InputError, match="one for each hidden layer"):
        read_map(vllm, MODEL, 2)
    with pytest.raises(InputError, match="8 slots, which do not divide over 3 GPUs"):
        read_map(trtllm, MODEL, 3)
    with pytest.raises(InputError, match="names expert 5 of 5"):
        read_map(trtllm, replace(MODEL, experts=(5, 5, 5)), 2)
    with pytest.raises(InputError, match="holds expert 6 nowhere"):
        read_map(trtllm, replace(MODEL, experts=(7, 7, 7)), 2)


def test_layers_of_other_experts_are_refused() -> None:
    """Formats of one number of slots can't say what differs by layer."""
    model = replace(MODEL, experts=(6, 4, 6))
    for name in ("sglang", "trtllm", "vllm", "vllm-ascend", "deepseek"):
        with pytest.raises(InputError, match="one number of experts for all layers"):
            FORMATS[name].write(MAP, model, EXTRAS)


def test_failed_gpus_are_refused(tmp_path: Path) -> None:
    """An engine starts on all GPUs or not at all."""
    lost = ExpertMap((0,), (((0, 1), (-1, -1)),))
    with pytest.raises(InputError, match="have failed"):
        lost.check(ModelLayers(1, (0,), (2,)), "plan.json")


def test_engines_strictness(tmp_path: Path) -> None:
    """What an engine's own reader would crash on or refuse is refused, with the reason."""
    path = _write(tmp_path, "sglang", MAP, MODEL)
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "comment": "solved"}))
    with pytest.raises(InputError, match="comment beside physical_to_logical_map: SGLang crashes on any other key"):
        read_map(path, MODEL, 2)
    path.write_text('{"logical_count": [[1, 2]]}')
    with pytest.raises(InputError, match=r"is load, not a map.*placement trace convert"):
        read_map(path, MODEL, 2)
    yaml = _write(tmp_path, "trtllm", MAP, MODEL)
    yaml.write_text(yaml.read_text() + "comment: solved\n")
    with pytest.raises(InputError, match="TensorRT-LLM refuses any other field"):
        read_map(yaml, MODEL, 2)
    with pytest.raises(InputError, match="is a file of trtllm, not of sglang"):
        read_map(yaml, MODEL, 2, "sglang")
    ascend = _write(tmp_path, "vllm-ascend", MAP, MODEL)
    data = json.loads(ascend.read_text())
    data["layer_list"][1]["device_list"][0]["device_expert"].append(0)
    ascend.write_text(json.dumps(data))
    with pytest.raises(InputError, match="unequally many"):
        read_map(ascend, MODEL, 2)
    triple = _write(tmp_path, "deepseek", MAP, MODEL)
    with np.load(triple) as loaded:
        arrays = dict(loaded)
    arrays["logcnt"][1, 2] += 1
    np.savez(triple, **arrays)
    with pytest.raises(InputError, match=r"logcnt\[1\]\[2\]: does not follow"):
        read_map(triple, MODEL, 2)
    with pytest.raises(ParameterError, match="architecture"):
        FORMATS["vllm-hygon"].write(MAP, MODEL, Extras())


def test_a_torch_file(tmp_path: Path) -> None:
    """SGLang's .pt form, of plain tensors alone."""
    torch = pytest.importorskip("torch")
    rows = json.loads(FORMATS["sglang"].write(MAP, MODEL, EXTRAS))
    path = tmp_path / "map.pt"
    torch.save({"physical_to_logical_map": torch.tensor(rows["physical_to_logical_map"])}, path)
    assert read_map(path, MODEL, 2).experts == MAP
    torch.save({"physical_to_logical_map": Path("x")}, path)
    with pytest.raises(InputError, match="can't be read as plain tensors"):
        read_map(path, MODEL, 2)
    torch.save({"physical_to_logical_map": torch.zeros(1, dtype=torch.long).expand(2**15, 2**15)}, path)
    with pytest.raises(InputError, match="has shape"):
        read_map(path, MODEL, 2)
    torch.save(torch.zeros(2), path, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="is a pickle, which is not loaded"):
        read_map(path, MODEL, 2)


def test_a_map_that_is_too_large(tmp_path: Path) -> None:
    """Sizes are looked at before anything is unpacked."""
    path = tmp_path / "map.json"
    path.write_bytes(b"[" + b" " * MAX_TEXT_BYTES + b"]")
    with pytest.raises(InputError, match=f"is over {MAX_TEXT_BYTES} bytes"):
        read_content(path)
    bomb = tmp_path / "map.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("map/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("map/data/0", b"\0" * 2**29)
    with pytest.raises(InputError, match="unpacks to over"):
        read_content(bomb)
    many = tmp_path / "map.npz"
    np.savez(many, **{str(i): np.zeros(1) for i in range(40)})
    with pytest.raises(InputError, match="holds 40 arrays"):
        read_content(many)
    for name, text in (
        ("deep.json", "[" * 100_000),
        ("deep.yaml", "a: " + "[" * 100_000),
        ("long.json", f"[[{'9' * 10_000}]]"),
        ("bomb.yaml", "a: &a [1, 2]\nb: *a\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError):
            read_map(tmp_path / name, MODEL, 2)
    for path in (tmp_path, tmp_path / "missing.json", Path("/dev/zero")):
        with pytest.raises(InputError):
            read_map(path, MODEL, 2)


@pytest.mark.parametrize("name", FORMATS)
def test_hostile_files(name: str, tmp_path: Path) -> None:
    """Cut and changed files give the map of a model, or one line: 260 files of each format."""
    whole = _write(tmp_path, name, MAP, MODEL).read_bytes()
    path = tmp_path / "hostile"
    rng = random.Random(name)
    told: list[str] = []
    for case in range(260):
        data = bytearray(whole)
        if case % 3 == 0:
            del data[rng.randrange(len(data)) :]
        elif case % 3 == 1:
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        else:
            at = rng.randrange(len(data))
            data[at:at] = rng.choice([b"-", b"9" * 30, b"[", b"{", b"null", b'"', b"1e9", b"\0", b"NaN", b","])
        path.write_bytes(bytes(data))
        try:
            read = read_map(path, MODEL, 2)
        except (InputError, MissingExtraError) as error:
            told.append(str(error))
        else:
            read.experts.check(MODEL, "read")
    assert len(told) > 100
    assert all("\n" not in line and len(line) < 700 for line in told)


# What engines wrote, and what only shows a form.
_SHARED = {
    "DSV3_0427_GSM8K_decode_RedFullLays_+10_58_MoELayers_32_dies_epmaxdeploy_12.npz": ("omni", 61, 3, 256, 32),
    "DSV3_baseline_8_devices_58_MoE_Layers.npz": ("omni", 61, 3, 256, 8),
    "placement_pattern_3d_v3_supersuperrr4_32devices_SC.npz": ("omni", 61, 3, 256, 32),
    "hygon_vllm_offline_eplb_v2_SHAPE.json": ("vllm-hygon", 2, 0, 4, 2),
    "sglang_init_by_mapping_SHAPE.json": ("sglang", 2, 0, 4, 2),
    "trtllm_pr4615_moe_load_balancer_RECONSTRUCTED.yaml": ("trtllm", 27, 1, 72, 8),
    "vllm_ascend_test_expert_map.json": ("vllm-ascend", 1, 0, 8, 2),
}


@pytest.mark.parametrize("file", _SHARED)
def test_files_that_engines_wrote(file: str, shared_dir: Path) -> None:
    """They read as maps, in the format that they are in."""
    name, hidden, dense, experts, gpus = _SHARED[file]
    model = ModelLayers(hidden, tuple(range(dense, hidden)), (experts,) * (hidden - dense))
    path = shared_dir / "engines" / "maps" / file
    read = read_map(path, model, gpus)
    assert format_of(read_content(path)).name == name
    assert read.experts.gpus == gpus
    assert read.experts.without_repeats()[0].rows


def test_redundancy_in_some_layers(shared_dir: Path) -> None:
    """omni-infer's pattern has 288 slots in ten layers and 256 in the others: it reads and is written as it is."""
    file = "DSV3_0427_GSM8K_decode_RedFullLays_+10_58_MoELayers_32_dies_epmaxdeploy_12.npz"
    model = ModelLayers(61, tuple(range(3, 61)), (256,) * 58)
    experts = read_map(shared_dir / "engines" / "maps" / file, model, 32).experts
    slots = [len(experts.flat(i)) for i in range(58)]
    assert sorted(set(slots)) == [256, 288]
    assert slots.count(288) == 10
    with np.load(shared_dir / "engines" / "maps" / file) as found:
        array = found["placement"]
    written = np.load(io.BytesIO(FORMATS["omni"].write(experts, model, EXTRAS)))
    assert np.array_equal(written, array)


def test_loads_are_told_from_maps(shared_dir: Path) -> None:
    """SGLang's recordings hold load: they are recognized as such, and say what reads them."""
    model = ModelLayers(61, tuple(range(3, 61)), (256,) * 58)
    files = ["sglang_init_by_eplb_SHAPE.json"]
    pytest.importorskip("torch")
    files.append("expert_distribution_fp4_1k1k_compressed.pt")
    for file in files:
        with pytest.raises(InputError, match=r"is load, not a map.*placement trace convert"):
            read_map(shared_dir / "engines" / "maps" / file, model, 8)
