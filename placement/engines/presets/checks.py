"""Commands that measure a fabric in the sizes of the plan's messages: what the tariff expects, how to read less."""

from __future__ import annotations

import math
from collections.abc import Iterator

from placement.engines.presets.deepep import deepep, low_latency_width
from placement.engines.presets.fabric import rails_of
from placement.engines.presets.messages import Messages, messages_of
from placement.engines.presets.preset import Preset
from placement.engines.presets.served import Served
from placement.records.base import Amount, Record, Text

#: Bytes that a measurement of bandwidth alone takes: latency is then below a percent of it.
LARGE = 2**30
_PERFORMANCE = "https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md"
_NVBANDWIDTH = "https://github.com/NVIDIA/nvbandwidth"
_TROUBLES = "https://github.com/NVIDIA/nccl/tree/master/docs/userguide/source/troubleshooting"


class Check(Record):
    """A measurement.

    Attributes:
        name: What is measured.
        command: One command a line.
        looks_for: What to read in the output.
        expected: The least figure that the plan counts on; null where the output is no figure. unit: Of it.
        formula: How it comes about.
        if_lower: What to look at, likeliest first.
        document: Where the tool is described.
    """

    name: Text
    command: Text
    looks_for: Text
    expected: Amount | None = None
    unit: Text = ""
    formula: Text = ""
    if_lower: tuple[Text, ...]
    document: Text


def checks_of(served: Served, preset: Preset) -> tuple[Check, ...]:
    """The checks of an instance's fabric, from the links up to the messages."""
    return tuple(_checks(served, preset))


def _checks(served: Served, preset: Preset) -> Iterator[Check]:
    yield from _links(served)
    yield from _rails(served)
    messages = messages_of(served)
    for each in messages[:1]:
        yield _exchange(served, preset, each, LARGE, "bandwidth")
    for each in messages:
        yield _exchange(served, preset, each, _whole(each), f"{each.phase} dispatch")
        yield from _kernels(served, each)


def _links(served: Served) -> Iterator[Check]:
    """NVLink: that it is there, and what a pair of GPUs reaches."""
    cluster = served.scenario.cluster
    inside = cluster.inside(min(served.split.gpus_per_stage, cluster.gpus_per_node))
    racks = served.fabric == "nvl72"
    if racks:
        yield Check(
            name="NVLink domain",
            command='nvidia-imex-ctl -H -N\nnvidia-smi -q | grep -v GUID | grep -A4 Fabric',
            looks_for="Domain State: UP, every node READY, and the same CliqueId on every OS node",
            if_lower=(
                "Domain State is not UP: start nvidia-imex on every OS node with one list of nodes.",
                "A node is READY but not connected (V): drivers differ between OS nodes.",
                "NCCL says `operation not permitted`: the user may not write /dev/nvidia-caps-imex-channels/channel*.",
            ),
            document=f"{_TROUBLES}/performance_and_tuning.rst",
        )  # fmt: skip
    gpus, local = served.split.gpus_per_stage, served.node_gpus
    test = "./nvbandwidth -t device_to_device_memcpy_read_ce"
    if racks:
        test = f"mpirun -np {gpus} -N {min(gpus, local)} ./nvbandwidth -p multinode"
    yield Check(
        name="NVLink, pairs of GPUs",
        command=test,
        looks_for="the smallest figure of the matrix",
        expected=round(inside.bytes_per_s / 1e9, 1),
        unit="GB/s",
        formula=f"{inside.gb_per_s:g} GB/s x {inside.efficiency:g} (the cluster's link, one direction)",
        if_lower=(
            "One GPU is low in its row and column: `nvidia-smi nvlink -s` shows links that are down.",
            "All pairs of different OS nodes are low: NVLink between them is not in use; see the NVLink domain."
            if racks
            else "All pairs are low: `nvidia-smi topo -p2p n` must say OK everywhere, else traffic goes over PCIe.",
        ),
        document=_NVBANDWIDTH,
    )  # fmt: skip


def _rails(served: Served) -> Iterator[Check]:
    """Each NIC of an OS node, against the same NIC of another."""
    if served.fabric == "nvlink":
        return
    cluster, asked = served.scenario.cluster, served.asked
    rails = rails_of(cluster, served.fabric)
    names = asked.hca.split(",") if asked.hca else [f"NIC_{rail}" for rail in range(rails)]
    nominal = cluster.slow.gb_per_s * cluster.os_node_gpus / len(names) * 8
    efa = served.fabric == "efa"
    options = "-c SRD -F" if efa else "-F"
    yield Check(
        name="rails, one NIC after the other",
        command="\n".join(
            f"ib_write_bw -d {name} {options} -s 8388608 -D 10 --report_gbits "
            f"--use_cuda={rail * cluster.os_node_gpus // len(names)} $OTHER_NODE"
            for rail, name in enumerate(names)
        ),
        looks_for="BW average; start the same command without $OTHER_NODE there first",
        expected=round(nominal * cluster.slow.efficiency, 1),
        unit="Gb/s",
        formula=f"{cluster.slow.gb_per_s:g} GB/s of a GPU x {cluster.os_node_gpus} GPUs / {len(names)} NICs x 8, "
        f"{nominal:g} Gb/s nominal, x {cluster.slow.efficiency:g}",
        if_lower=tuple(_lower_rail(served)),
        document=f"{_TROUBLES}/networking_troubleshooting.rst",
    )


def _lower_rail(served: Served) -> Iterator[str]:
    yield "Without --use_cuda it is as expected: GPUDirect RDMA is off (nvidia-peermem, DMA-BUF) or PCIe ACS is on."
    if served.fabric == "efa":
        yield "The test does not start: this perftest is older than EFA's SRD; take a newer one."
        return
    yield "One rail is low: compare its `Rate` in ibstat with the others; `mlxlink` and `rdma statistic` tell errors."
    if served.fabric == "ethernet":
        yield "Figures vary: look for pause frames and drops (`ethtool -S`), then for PFC and ECN of the switches."
    else:
        yield "All rails are low over several switches: look at routing and congestion with ibdiagnet."


def _exchange(served: Served, preset: Preset, messages: Messages, size: int, what: str) -> Check:
    """NCCL's own exchange of `size` bytes: what nccl-tests takes, a GPU's to all GPUs, or all that a gather yields."""
    gpus, dense, large = messages.topology.gpus, messages.rule == "dense", size == LARGE
    seconds = messages.gather_s(size) if dense else messages.even_exchange_s(size)
    bus = size * (gpus - 1) / gpus / seconds / 1e9
    return Check(
        name=f"NCCL {'all-gather' if dense else 'all-to-all'}, {what}",
        command=_nccl_test(served, preset, "all_gather_perf" if dense else "alltoall_perf", size, messages),
        looks_for="busbw, out-of-place" if large else "time, out-of-place",
        expected=round(bus, 1) if large else round(seconds * 1e6, 1),
        unit="GB/s" if large else "us",
        formula=_formula(messages, size),
        if_lower=tuple(_lower_exchange(served, large)),
        document=_PERFORMANCE,
    )


def _whole(messages: Messages) -> int:
    """Bytes of a pass's dispatch as nccl-tests takes them, a multiple of 16 for each GPU."""
    each = messages.peer_bytes if messages.rule != "dense" else messages.tokens * messages.rates.dispatch_bytes
    return messages.topology.gpus * 16 * max(1, math.ceil(each / 16))


def _kernels(served: Served, messages: Messages) -> Iterator[Check]:
    """DeepEP's own test, where its kernels carry the phase."""
    split, model = served.split, served.scenario.model
    local = min(split.gpus_per_stage, served.node_gpus)
    quick = served.backend == "deepep_low_latency" or (served.backend == "deepep" and messages.phase == "decode")
    bulk = served.backend == "deepep_high_throughput" or (served.backend == "deepep" and messages.phase == "prefill")
    if not quick and not bulk:
        return
    width = model.moe.sent_width(model.hidden)
    options = [
        f"--num-processes {local}",
        f"--num-tokens {math.ceil(messages.tokens)}",
        f"--hidden {low_latency_width(width) if quick else width}",
        f"--num-topk {model.moe.top_k}",
        f"--num-experts {split.slots}",
    ]
    if quick and served.fabric == "nvl72":
        options.append("--allow-mnnvl")
    test = "low_latency" if quick else "internode" if split.ep > deepep().peers else "intranode"
    nodes = -(-split.gpus_per_stage // local)
    where = f"MASTER_ADDR=$HEAD_ADDRESS WORLD_SIZE={nodes} RANK=$NODE_RANK "
    yield Check(
        name=f"DeepEP, {messages.phase} dispatch and combine",
        command=f"{where if nodes > 1 else ''}python tests/test_{test}.py {' '.join(options)}",
        looks_for="the times of dispatch and of combine, added up",
        expected=round((messages.dispatch_s + messages.combine_s) * 1e6, 1),
        unit="us",
        formula=f"2 x latency {messages.latency_s * 1e6:.2f} us + {math.ceil(messages.tokens)} tokens x "
        f"{messages.rates.both_bytes:.0f} bytes x {messages.fast:.2f} messages at "
        f"{messages.rates.fast_bytes_per_s / 1e9:.0f} GB/s"
        + (f" or {messages.slow:.2f} at {messages.rates.slow_bytes_per_s / 1e9:.1f} GB/s" if messages.slow else ""),
        if_lower=(
            "Links are as expected, this is slower: the tariff leaves out the kernels' own start, a cost of small "
            "batches. Write the measured latency into the cluster's file and plan again.",
            "One rank is slower than the others: its NIC or its CPU is far from the GPU (`nvidia-smi topo -m`).",
        ),
        document="https://github.com/deepseek-ai/DeepEP/blob/main/docs/legacy.md",
    )  # fmt: skip


def _nccl_test(served: Served, preset: Preset, program: str, size: int, messages: Messages) -> str:
    gpus = served.split.gpus_per_stage
    passed = [f"-x {entry.name}" for entry in preset.variables if entry.software == "nccl"]
    if served.fabric == "nvl72":
        # For this run alone: initialization fails where NVLink between OS nodes can't be used.
        passed.append("-x NCCL_MNNVL_ENABLE=1")
    words = ["mpirun", f"-np {gpus}", f"-N {min(gpus, served.node_gpus)}", *passed]
    words += [f"./build/{program}", f"-b {size} -e {size} -n 100 -w 20"]
    if size != LARGE and messages.phase == "decode":
        words.append("-G 10")  # in a CUDA graph, as engines launch decode steps
    return " ".join(words)


def _formula(messages: Messages, size: int) -> str:
    topology, rates = messages.topology, messages.rates
    gpus, inside, nodes = topology.gpus, topology.gpus_per_node, topology.nodes
    dense = messages.rule == "dense"
    fast, slow = (nodes * (inside - 1), nodes - 1) if dense else (inside - 1, gpus - inside)
    told = f"{size} bytes over {gpus} GPUs: latency {messages.latency_s * 1e6:.2f} us + the slower of "
    told += f"{fast} / {gpus} of it at {rates.fast_bytes_per_s / 1e9:.0f} GB/s"
    return told + (f" and {slow} / {gpus} at {rates.slow_bytes_per_s / 1e9:.1f} GB/s" if slow else "")


def _lower_exchange(served: Served, large: bool) -> Iterator[str]:
    if served.fabric == "nvl72":
        yield "It fails at once: NVLink between OS nodes is not usable (NCCL_MNNVL_ENABLE=1 makes that an error here)."
    if served.fabric in ("ib", "ethernet"):
        yield "NCCL_NET=IB fails at once: no RDMA NIC is usable from this container (devices, memlock, /sys)."
    if served.fabric == "efa":
        yield "As slow as TCP: aws-ofi-nccl was not loaded; check NCCL_NET_PLUGIN and the library path."
    if not large:
        yield "Bandwidth is as expected, this is slower: what is left is NCCL's own start, which the tariff leaves out."
        return
    yield "Links and rails are as expected, this is not: processes sit far from GPUs (try NCCL_IGNORE_CPU_AFFINITY=1)."
    if served.fabric == "ethernet":
        yield "Try NCCL_IB_QPS_PER_CONNECTION=4 in this test; if it helps, routes collide: mend them in the switches."
    if served.scenario.cluster.gpus_per_tray > 1 and served.fabric not in ("nvlink", "nvl72"):
        yield "Half of it: GPUs share a NIC; try NCCL_NETDEVS_POLICY=MAX:1 in this test."
