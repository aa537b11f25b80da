"""From machines to clusters: levels, NICs, assumptions and warnings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from specs.cluster import Cluster
from specs.errors import InputError
from specs.loading import load_cluster
from specs.topologies.derive import Given
from specs.topologies.reading import Reading, read_topology
from tests.specs.topologies.files import Slot, hgx, matrix, rails, xml


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Reading]:
    """Reads a text as a topology file."""

    def reading(text: str, gpu: str | None = "h100_hgx_ib", **given: float) -> Reading:
        path = tmp_path / "machine.txt"
        path.write_text(text)
        return read_topology(path, Given(gpu, **given))  # type: ignore[arg-type]

    return reading


def split(cluster: Cluster) -> dict[str, tuple[int, float]]:
    """Each level's GPUs and achieved GB/s."""
    levels = {level.name: (level.gpus, level.bytes_per_s / 1e9) for level in cluster.inner}
    return {**levels, "node": (cluster.gpus_per_node, cluster.fast.bytes_per_s / 1e9)}


def test_a_machine_as_it_should_be_is_its_catalog_entry_and_warns_of_nothing(read: Callable[..., Reading]) -> None:
    for text in (rails(), hgx()):
        found = read(text, nodes=4)
        wanted = load_cluster("h100_hgx_ib")
        assert found.warnings == ()
        for name in ("gpu", "nodes", "gpus_per_node", "gpus_per_os_node", "gpus_per_tray", "inner"):
            assert getattr(found.cluster, name) == getattr(wanted, name)
        assert found.cluster.fast.bytes_per_s == wanted.fast.bytes_per_s
        assert found.cluster.slow.bytes_per_s == wanted.slow.bytes_per_s


def test_an_xml_needs_no_option_where_it_names_the_gpu_and_the_nics(read: Callable[..., Reading]) -> None:
    found = read(hgx(), None)
    assert (found.cluster.gpu.name, found.assumed) == ("H100 SXM 80GB", ())


@pytest.mark.parametrize(
    ("links", "gpu", "rate"),
    [("NV18", "b200", 900), ("NV12", "dgx_a100_80gb", 300), ("NV8", "h800", 200), ("NV16", "h200", 400)],
)
def test_nvlink_is_its_links_times_the_generations_rate(
    read: Callable[..., Reading], links: str, gpu: str, rate: float
) -> None:
    assert read(rails(8, links), gpu).cluster.fast.gb_per_s == rate


def test_links_to_each_peer_add_up_where_no_switch_joins_them(read: Callable[..., Reading]) -> None:
    assert read(rails(4, "NV6")).cluster.fast.gb_per_s == 450
    assert read(rails(2, "NV12"), "H100 NVL 94GB").cluster.fast.gb_per_s == 300


def test_pairs_and_sockets_are_levels(read: Callable[..., Reading]) -> None:
    text = matrix(
        8, 2, lambda i, j: "NV12" if i // 2 == j // 2 else "NODE" if i // 4 == j // 4 else "SYS",
        lambda i, j: "NODE" if i // 4 == j else "SYS",
    )  # fmt: skip
    found = read(text, "h100_nvl_pcie", nic_gb_per_s=50.0)
    wanted = load_cluster("h100_nvl_pcie")
    assert list(split(found.cluster).values()) == list(split(wanted).values())
    assert [level.name for level in found.cluster.inner] == ["nvlink", "socket"]
    assert (found.cluster.gpus_per_tray, found.cluster.slow.gb_per_s) == (4, 12.5)
    assert [text for text in found.warnings if "share" in text]


def test_pcie_switches_are_a_level_and_their_width_a_rate(read: Callable[..., Reading]) -> None:
    slots = [Slot([f"{2 * i:02x}", f"{2 * i + 1:02x}"], [f"{64 + i:02x}"], i // 2) for i in range(4)]
    cluster = read(xml(slots, device="0x26b9", width="8"), None).cluster
    assert cluster.gpu.name == "L40S 48GB"
    assert cluster.inner[0].gb_per_s == pytest.approx(31.5, abs=0.1)
    assert split(cluster)["pcie_switch"][0] == 2
    assert cluster.fast.bytes_per_s < cluster.inner[0].bytes_per_s
    assert (cluster.gpus_per_tray, cluster.slow.gb_per_s) == (2, 25)


@pytest.mark.parametrize("kind", ["PHB", "PIX"])
def test_one_socket_of_alike_gpus_has_no_level(read: Callable[..., Reading], kind: str) -> None:
    found = read(matrix(4, 0, lambda i, j: kind, lambda i, j: ""), "l40s")
    assert (found.cluster.inner, found.cluster.fast.efficiency) == ((), 0.86)
    assert any("the file has none" in text for text in found.assumed)


def test_a_gpu_off_nvlink_slows_its_node_and_is_named(read: Callable[..., Reading]) -> None:
    text = matrix(8, 8, lambda i, j: "SYS" if 2 in (i, j) else "NV18", lambda i, j: "PIX" if i == j else "SYS")
    found = read(text)
    assert [text for text in found.warnings if text.startswith("GPU2 is off NVLink")]
    assert any("over PCIe" in text for text in found.assumed)
    assert found.cluster.fast.bytes_per_s < 25e9


def test_unlike_links_are_named(read: Callable[..., Reading]) -> None:
    uneven = matrix(4, 4, lambda i, j: "NV16" if 3 in (i, j) else "NV18", lambda i, j: "PIX" if i == j else "SYS")
    found = read(uneven, "b200")
    assert found.warnings == ("GPU3 (16) has fewer NVLinks than the 18 of most GPUs",)
    assert found.cluster.fast.gb_per_s == 800
    onesided = matrix(4, 4, lambda i, j: "NV9" if (i, j) == (1, 0) else "NV18", lambda i, j: "PIX" if i == j else "SYS")
    assert [text for text in read(onesided).warnings if "asymmetric NVLink" in text and "GPU0 NV18, GPU1 NV9" in text]


def test_nics_are_judged_by_what_is_near_them(read: Callable[..., Reading]) -> None:
    order = [2, 1, 3, 0]
    crossed = matrix(4, 4, lambda i, j: "NV6", lambda i, j: "PIX" if order[j] == i else "NODE")
    (told,) = read(crossed).warnings
    assert "another order" in told
    assert told.endswith("GPU0 NIC3, GPU1 NIC1, GPU2 NIC0, GPU3 NIC2")
    storage = matrix(4, 5, lambda i, j: "NV6", lambda i, j: "PXB" if i == j else "NODE")
    (told,) = read(storage).warnings
    assert told.startswith("NIC4 is far from every GPU")
    alone = matrix(4, 3, lambda i, j: "NV6", lambda i, j: "PIX" if i == j else "SYS")
    assert any(text.startswith("GPU3 has no NIC on a PCIe switch") for text in read(alone).warnings)


def test_a_tray_of_a_rack_becomes_the_rack(read: Callable[..., Reading]) -> None:
    found = read(rails(4), "gb200_nvl72_ib", nodes=8, machines_per_node=18)
    wanted = load_cluster("gb200_nvl72_ib")
    assert (found.cluster.gpus, found.cluster.gpus_per_node, found.cluster.os_node_gpus) == (576, 72, 4)
    assert found.cluster.fast.bytes_per_s == wanted.fast.bytes_per_s
    with pytest.raises(InputError, match="leave it out"):
        read(matrix(4, 0, lambda i, j: "SYS", lambda i, j: ""), "l40s", machines_per_node=2)


def test_two_trays_in_one_xml_are_one_node_of_two_os_nodes(read: Callable[..., Reading]) -> None:
    trays = [
        xml([Slot(["01", "02"], ["20"])], {name: {"switch": 18} for name in ("01", "02")}, "0x2941", host=host)
        for host in ("0xa", "0xb")
    ]
    body = "".join(text.removeprefix('<system version="1">').removesuffix("</system>") for text in trays)
    cluster = read(f"<system>{body}</system>", None).cluster
    assert (cluster.gpus_per_node, cluster.os_node_gpus, cluster.fast.gb_per_s) == (4, 2, 900)


@pytest.mark.parametrize(
    ("gpu", "told"),
    [
        (None, "does not say which GPU it has; give `gpu`: one of"),
        ("h100", "'h100' is H100 NVL 94GB or H100 SXM 80GB; name one in full"),
        ("H1000", "the catalog has no GPU 'H1000'"),
    ],
)
def test_a_gpu_that_is_not_known_is_asked_for(read: Callable[..., Reading], gpu: str | None, told: str) -> None:
    with pytest.raises(InputError) as refused:
        read(rails(), gpu)
    assert told in str(refused.value)


def test_the_compute_capability_names_a_gpu_that_is_alone_in_it(read: Callable[..., Reading]) -> None:
    unknown = hgx(device="0xffff")
    with pytest.raises(InputError, match="10de:ffff is no GPU of the catalog; give `gpu`: one of H100 NVL 94GB, H100"):
        read(unknown, None)
    assert read(unknown.replace('sm="90"', 'sm="89"'), None).cluster.gpu.name == "L40S 48GB"


@pytest.mark.parametrize(
    ("name", "gpu", "warnings", "shape"),
    [
        ("aws_p4d-24xl-topo.xml", None, ["GPUs share NICs: GPU0 and GPU1 0000:10:1b.0"], (8, 2, 300.0, 6.25)),
        ("azure_ndv4-topo.xml", "dgx_a100_80gb", [], (8, 1, 300.0, 25.0)),
        ("azure_ndv5-topo.xml", "h100_hgx_ib", [], (8, 1, 450.0, 50.0)),
        (
            "b200_broken_nvlink_gpu2_PARTIAL.txt", "b200",
            ["the file is cut short: the rows of GPU6, GPU7", "the NICs of GPU6 and GPU7", "GPU2 is off NVLink"],
            (8, 1, 63.0, 50.0),
        ),
        ("dgx_h100_8gpu_12nic.txt", "h100_hgx_ib", ["NIC1, NIC2, NIC7 and NIC8 are far"], (8, 1, 450.0, 50.0)),
        ("h200_8gpu_8nic.txt", "h200", ["NICs are listed in another order"], (8, 1, 450.0, 50.0)),
    ],
)  # fmt: skip
def test_real_machines_are_read_with_the_right_warnings(
    shared_dir: Path, name: str, gpu: str | None, warnings: list[str], shape: tuple[int, int, float, float]
) -> None:
    path = shared_dir / "topologies" / name
    if not path.exists():
        pytest.skip(f"{name} is not beside this checkout")
    found = read_topology(path, Given(gpu))
    assert len(found.warnings) == len(warnings)
    assert all(text.startswith(start) for text, start in zip(found.warnings, warnings, strict=True))
    cluster = found.cluster
    assert (cluster.gpus_per_node, cluster.gpus_per_tray, cluster.fast.gb_per_s, cluster.slow.gb_per_s) == shape
