"""`python -m bench fits`: the smallest instances, by brute force, and what the recipes ask for."""

import json

import pytest

from bench.cli import cli
from bench.fits.recipes import Asked, load_recipes
from bench.fits.smallest import default_workload, smallest
from placement.cli.running import outcome
from placement.cost.memory.hbm import memory_of
from placement.errors import InputError
from placement.problem.split import make_split
from specs.loading import catalog_names, load_cluster, load_engine, load_model
from specs.overrides import overridden_spec
from specs.scenario import Scenario


def shown(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert outcome(cli, "python -m bench", ("fits", *args)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("model", "cluster", "gpus"), [("qwen3_235b", "h200_hgx_ib", 4), ("glm_5", "mi300x_ib", 16)])
def test_no_smaller_instance_fits(model: str, cluster: str, gpus: int) -> None:
    read, whole = load_model(model), load_cluster(cluster)
    workload = default_workload(read)
    assert workload is not None
    found = smallest(read, whole, workload)
    assert found is not None
    assert found.gpus == gpus
    case = Scenario(name="case", model=read, cluster=whole, workload=workload, engine=load_engine("vllm"))
    split = make_split(case, found.tp, found.ep, found.pp, found.dp, found.sequences // found.dp)
    assert memory_of(case, split).fits
    more = make_split(case, found.tp, found.ep, found.pp, found.dp, found.sequences // found.dp + 1)
    assert not memory_of(case, more).fits
    powers = [1, 2, 4, 8]
    for tp, dp, pp in ((tp, dp, pp) for tp in powers for dp in powers for pp in powers if tp * dp * pp < gpus):
        for ep in {1, tp * dp}:
            try:
                smaller = make_split(case, tp, ep, pp, dp, 1)
            except InputError:
                continue
            assert not memory_of(case, smaller).fits


def test_a_block_quantized_model_fits_where_its_recipe_says(capsys: pytest.CaptureFixture[str]) -> None:
    cells = json.loads(shown(capsys, "--models", "qwen3_235b", "--clusters", "h100_hgx_ib,l40s_pcie", "--json"))
    fp8 = {cell["cluster"]: cell for cell in cells if cell["weights"] == "fp8"}
    assert fp8["h100_hgx_ib"]["fits"] | {"sequences": 0} == {
        "gpus": 4, "tp": 4, "ep": 1, "pp": 1, "dp": 1, "sequences": 0,
    }  # fmt: skip
    assert fp8["h100_hgx_ib"]["asked"] == {"gpus": 4, "stated": True}
    # 8 GPUs of 48 GB: TP 8 without EP would leave 192 columns of 128-wide blocks.
    assert fp8["l40s_pcie"]["fits"]["gpus"] == 8
    assert fp8["l40s_pcie"]["fits"]["tp"] // fp8["l40s_pcie"]["fits"]["ep"] <= 4


def test_the_table_fits_80_columns_and_explains_each_difference(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys).splitlines()
    assert max(map(len, lines)) <= 80
    end = lines.index("")
    assert {line.split()[0] for line in lines[1:end]} == set(catalog_names("model")) - {"moe_175b"}
    _, states, _, counts, *_ = lines[end + 1].split()
    same = int(lines[end + 1].split()[4])
    assert states == "state"
    assert len(lines[end + 4 :]) == int(lines[end + 1].split()[2]) - same
    assert counts == "counts;"


def test_recipes_name_what_the_catalog_has() -> None:
    recipes = load_recipes()
    clusters = set(catalog_names("cluster"))
    assert set(recipes.gpu_gb) <= clusters
    for each in recipes.checkpoints:
        assert {*each.gpus, *each.why, *each.unsupported} <= clusters
        path, _, commit = each.recipe.partition("@")
        assert path.endswith(".yaml")
        assert len(commit) == 12
        model = load_model(each.model)
        changed = overridden_spec("model", model, set={f"types.{field}": type_ for field, type_ in each.types.items()})
        assert changed.types.experts.startswith(each.weights)


def test_memory_that_a_recipe_asks_for_becomes_gpus() -> None:
    recipes = load_recipes()
    glm, nvfp4 = (
        next(each for each in recipes.checkpoints if (each.model, each.weights) == wanted)
        for wanted in (("glm_5", "bf16"), ("qwen3_235b", "nvfp4"))
    )
    assert recipes.asked(glm, "h100_hgx_ib") == Asked(24, False)  # 1,786 GB: 22.3 GPUs, whole nodes
    assert recipes.asked(glm, "mi355x_ib") == Asked(8, False)  # 6.2 GPUs, a power of two
    assert recipes.asked(nvfp4, "b200_hgx_ib") == Asked(1, False)
    assert recipes.asked(nvfp4, "h100_hgx_ib") is None  # not offered there
    assert recipes.asked(glm, "l40s_pcie") is None  # not in the recipes' taxonomy
