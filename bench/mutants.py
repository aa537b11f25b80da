"""Do the tests notice a wrong price? Single changes of the cost model, each of which quick tests must catch.

    python -m bench.mutants            # all of them; a few minutes
    python -m bench.mutants --only 12  # one

Each change is a replacement of text in a copy of the tree. Mutations that no test fails on are listed, and exit code 1.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import click

ROOT = Path(__file__).resolve().parent.parent
TREES = ("placement", "solvers", "specs", "bench", "tests")
TARIFF, LAYER, BOUNDS = "placement/cost/layer/tariff.py", "placement/cost/layer", "solvers/bounds"
#: Quick tests, those first that notice most.
TESTS = (
    "tests/cost/test_balanced.py", "tests/cost/test_moe_layer.py", "tests/cost/test_running_systems.py",
    "tests/cost/test_risk.py", "tests/alltoall/test_concrete.py", "tests/cost/test_links.py",
    "tests/solvers/test_tariff.py",
    "tests/solvers/test_groups.py", "tests/solvers/test_dense.py", "tests/solvers/test_kernel.py",
    "tests/solvers/test_dispatch_lp.py", "tests/solvers/test_bounds.py", "tests/solvers/test_exact_running.py",
)  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """`before` in the file at `path`, where it stands once, becomes `after`."""

    path: str
    before: str
    after: str

    def applied(self, text: str) -> str:
        """The file's text with the change.

        Raises:
            ValueError: The file does not have `before`, or more than once.
        """
        if text.count(self.before) != 1:
            raise ValueError(f"{self.path} has {text.count(self.before)} times {self.before!r}")
        return text.replace(self.before, self.after)


MUTATIONS = (
    # What links and work cost.
    Mutation(TARIFF, "if topology.nodes > 1 else 0.0)", "if topology.nodes > 2 else 0.0)"),
    Mutation(TARIFF, "np.maximum(slow / rates.slow_bytes_per_s,", "np.maximum(slow / rates.fast_bytes_per_s,"),
    Mutation(TARIFF, "fast / rates.fast_bytes_per_s)", "fast / rates.slow_bytes_per_s)"),
    Mutation(TARIFF, "return 2 * self.latency_s if self.timed", "return self.latency_s if self.timed"),
    Mutation("placement/problem/rates.py", "self.dispatch_bytes + self.combine_bytes", "2 * self.dispatch_bytes"),
    Mutation(TARIFF, "spare + 1))", "spare))"),
    Mutation(TARIFF, "max(1, int(self.problem.hardware.alive.sum()))", "self.problem.topology.gpus"),
    Mutation(TARIFF, "np.maximum(np.arange(self.most_copies + 1), 1)", "np.arange(1, self.most_copies + 2)"),
    Mutation(TARIFF, "np.asarray(2 * self.latency_s + self.both", "np.asarray(self.latency_s + self.both"),
    Mutation(TARIFF, "self.rates.combine_bytes * link_s", "self.rates.dispatch_bytes * link_s"),
    Mutation(TARIFF, "moved, work, 2 * self.latency_s)", "moved, work, self.latency_s)"),
    Mutation(TARIFF, "float(links.across[0]) / self.all_tokens", "float(links.across[0])"),
    Mutation(TARIFF, "passed = tokens + self.enters", "passed = tokens"),
    Mutation(TARIFF, "keepdims=True) - passed).reshape", "keepdims=True) + 0 * passed).reshape"),
    Mutation(TARIFF, "slow * away[t * tray // m] / tray", "slow * away[t * tray // m]"),
    Mutation(TARIFF, "away, group = tokens.sum() - tokens", "away, group = tokens.sum() - 0 * tokens"),
    Mutation(TARIFF, "self.both_bytes * (1.0 - self.home_share)", "self.both_bytes * self.home_share"),
    Mutation(TARIFF, "node, node, nodes - 1", "node, node, nodes"),
    Mutation(TARIFF, "topology.node_of_gpu, gpus - m", "topology.node_of_gpu, gpus"),
    Mutation(TARIFF, "gpus / live, live - 1", "gpus / live, live"),
    Mutation(TARIFF, "(crowd_in[node] / size)", "crowd_in[node]"),
    Mutation(TARIFF, "n * gpus / live,", "n,"),
    Mutation(TARIFF, "out_s * share * crowd_out", "out_s * share"),
    Mutation(TARIFF, "self._busiest_tray(each) / np", "each.mean(axis=1) / np"),
    Mutation(TARIFF, "self.both_bytes * n / rate if priced", "self.rates.dispatch_bytes * n / rate if priced"),
    Mutation(f"{LAYER}/work.py", "-expm1(-count), count)", "-expm1(-x), count)"),
    Mutation(f"{LAYER}/work.py", "= kind.share * roofline_s", "= roofline_s"),
    Mutation(f"{LAYER}/work.py", "kind.share * kind.tokens * np.where", "kind.share * np.where"),
    Mutation(f"{LAYER}/work.py", "(wait + kind.tokens * (moved - wait))", "(kind.tokens * moved)"),
    # Messages and loads.
    Mutation(f"{LAYER}/links.py", "passed = tokens + enters", "passed = tokens"),
    Mutation(f"{LAYER}/links.py", "to * (of_node - tokens)", "to * of_node"),
    Mutation(f"{LAYER}/links.py", "tokens.sum(axis=0) - tokens", "tokens.sum(axis=0) - 0 * tokens"),
    Mutation(f"{LAYER}/links.py", "slow_in.reshape(trays).mean(axis=2)", "slow_in.reshape(trays).max(axis=2)"),
    Mutation(f"{LAYER}/messages/dense.py", "np.broadcast_to(usable,", "np.broadcast_to(np.ones_like(usable),"),
    Mutation(f"{LAYER}/dispatch/even.py", "np.repeat(1.0 / count, count)", "np.repeat(1.0 / count**2, count)"),
    Mutation("bench/alltoall/concrete.py", "passed = enters != to[away]", "passed = enters == to[away]"),
    Mutation(f"{LAYER}/risk.py", "left = tail * float", "left = float"),
    Mutation(f"{LAYER}/score.py", "(work / problem.hardware.speeds)", "(work * problem.hardware.speeds)"),
    # The estimate that every split is priced by.
    Mutation(f"{LAYER}/balanced.py", "return nodes * (m - 1) * gpu,", "return (m - 1) * gpu,"),
    Mutation(f"{LAYER}/balanced.py", "(nodes - 1) * each(on_node", "nodes * each(on_node"),
    Mutation(f"{LAYER}/balanced.py", "(topology.gpus - m) * gpu", "topology.gpus * gpu"),
    Mutation(f"{LAYER}/balanced.py", "return 2 * self.latency_s + rates", "return self.latency_s + rates"),
    Mutation(f"{LAYER}/balanced.py", "held / (experts - drawn)", "held / experts"),
    Mutation(f"{LAYER}/balanced.py", "self.slots_per_gpu * float(", "float("),
    Mutation(f"{LAYER}/balanced.py", "-self.shape * log1p", "-2 * self.shape * log1p"),
    # Bounds: too high, or none left.
    Mutation(f"{BOUNDS}/work.py", "total / float(speeds.sum())", "total / float(speeds.max())"),
    Mutation(f"{BOUNDS}/work.py", "/ float(speeds.max()) * (1", "* (1"),
    Mutation(f"{BOUNDS}/work.py", "_bound(cost, problem.hardware.usable_slots)", "_bound(cost, problem.experts)"),
    Mutation(f"{BOUNDS}/links.py", "Reach(nodes, gpus, nodes - 1, gpus - 1)", "Reach(nodes, gpus, nodes, gpus)"),
    Mutation(f"{BOUNDS}/links.py", "* topology.gpus_per_tray\n", "\n"),
    Mutation(f"{BOUNDS}/links.py", "fast /= int(trays.sum())", "fast /= 1"),
    Mutation(f"{BOUNDS}/links.py", "(total - float(tokens.max())) * (none", "total * (none"),
    Mutation(f"{BOUNDS}/layer.py", "float(problem.hardware.home_tokens.sum())", "problem.topology.gpus"),
)  # fmt: skip


def killed_by(tree: Path, mutation: Mutation) -> str | None:
    """The first test that fails in the copy of the sources with the mutation, or None."""
    path = tree / mutation.path
    text, times = path.read_text(), path.stat()
    path.write_text(mutation.applied(text))
    environment = {**os.environ, "PYTHONPATH": str(tree), "HYPOTHESIS_STORAGE_DIRECTORY": str(tree / ".hypothesis")}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=no", "--no-header"]
    try:
        done = subprocess.run(
            [*command, *TESTS], cwd=tree, env=environment, capture_output=True, text=True, check=False
        )
    finally:
        path.write_text(text)
        # Compiled kernels are known by the time of their file.
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    if done.returncode == 0:
        return None
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split(" - ")[0] if failed else done.stdout.strip()[-200:]


@click.command(help=__doc__)
@click.option("--only", type=int, multiple=True, help="Number of a mutation; all without it.")
def command(only: tuple[int, ...]) -> None:
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in TREES:
            # With what has been compiled.
            copytree(ROOT / name, tree / name)
        (tree / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
        for number, mutation in enumerate(MUTATIONS):
            if only and number not in only:
                continue
            found = killed_by(tree, mutation)
            click.echo(f"{number:3d} {mutation.path}: {mutation.before} -> {mutation.after}\n    {found or 'SURVIVED'}")
            if found is None:
                survivors.append(number)
    if survivors:
        raise SystemExit(f"no test fails on mutations {', '.join(map(str, survivors))}")


if __name__ == "__main__":
    command()
