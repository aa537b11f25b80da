"""The lists of names: what the software has, and what is kept out of production."""

from __future__ import annotations

from pathlib import Path

import pytest

from placement.engines.launch.registry import LAUNCHERS
from placement.engines.settings.names import SOFTWARE, names_of
from placement.engines.settings.reread import main, missing_from, sglang_names, vllm_names

#: Macros of headers and of a build, which no process reads, in the lists beside this checkout.
MACROS = {
    "NCCL_COMM_PROPERTIES_INITIALIZER", "NCCL_DEV_COMM_REQUIREMENTS_INITIALIZER", "NCCL_USE_CMAKE",
    "NVSHMEM_NAME", "NVSHMEM_name",
}  # fmt: skip


def test_lists_are_those_that_were_read_elsewhere(shared_dir: Path) -> None:
    """Nothing is added to lists that others read, but what the software's own code names beside them."""
    files = {
        "nccl": "nccl_2.30.7.txt", "nvshmem": "nvshmem.txt", "vllm": "vllm_0.33.0_envs.txt",
        "sglang": "sglang_0.5.23_environ.txt",
    }  # fmt: skip
    for software in SOFTWARE:
        others = set((shared_dir / "engines" / files[software]).read_text().split()) - MACROS
        assert names_of(software).variables - others <= {"SGLANG_PP_LAYER_PARTITION"}
        assert others - names_of(software).variables == set()
    options = set((shared_dir / "engines" / "vllm_0.33.0_cli.txt").read_text().split())
    assert names_of("vllm").options - options == {"--headless", "--host", "--port"}


def test_lists_are_those_of_the_wheels(
    vllm_wheel: Path, sglang_wheel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Re-reading the wheels finds the same names."""
    assert vllm_names(vllm_wheel) == (names_of("vllm").options, names_of("vllm").variables)
    assert sglang_names(sglang_wheel) == (names_of("sglang").options, names_of("sglang").variables)
    assert main(["--vllm", str(vllm_wheel), "--sglang", str(sglang_wheel)]) == 0
    assert capsys.readouterr().out == ""


def test_a_name_that_is_gone_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A library is searched for whole names, with or without their prefix."""
    library = tmp_path / "libnvshmem.so"
    library.write_bytes(b"\x7fELF\0QP_DEPTH\0NVSHMEM_INFO\0XHCA_LIST\0")
    names = frozenset({"NVSHMEM_QP_DEPTH", "NVSHMEM_INFO", "NVSHMEM_HCA_LIST"})
    assert missing_from([library], names, "NVSHMEM_") == {"NVSHMEM_HCA_LIST"}
    assert main(["--nvshmem", str(library)]) == 6
    assert "nvshmem - NVSHMEM_HCA_LIST\n" in capsys.readouterr().out


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_no_exporter_writes_what_is_for_debugging(engine: str) -> None:
    """NCCL's guide keeps these for experiments; `NCCL_MNNVL_ENABLE` is one of them."""
    debugging = names_of("nccl").debugging
    assert "NCCL_MNNVL_ENABLE" in debugging < names_of("nccl").variables
    for name in debugging:
        with pytest.raises(ValueError, match="is no known variable"):
            LAUNCHERS[engine].switches.variable(name, 1, reason="")
