"""Every name of this project that README.md and docs/ state exists: files, definitions, commands, options, values.

Sources are read with ast, so nothing heavy is imported for names; commands are walked as click knows them.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import zip_longest
from pathlib import Path

import click
import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGES = ("placement", "specs", "solvers", "bench")
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

#: Names of others: libraries, formats, units, programs.
FOREIGN = frozenset(
    {
        "NO_COLOR=1", """eval "$(_PLACEMENT_COMPLETE=bash_source placement)\"""", "zsh_source", "fish_source",
        "all_to_all_single", "torch", "torch.distributed", "torchrun", "venv", "tc tbf",
        "scipy.optimize.least_squares", "Optimal", "--gpu-memory-utilization", "--mem-fraction-static",
        "SGLANG_EXPERT_DISTRIBUTION_RECORDER_DIR", "per_pass", "stat_approx", "return_routed_experts", "weight_0",
        "nixl/base_worker.py",
        "--expert-distribution-recorder-buffer-size", "--enable-return-routed-experts",
        """--eplb-config '{"log_balancedness": true}'""", "meta_info.json",
        "--init-expert-location", "--eplb-algorithm deepseek", "--tp-size", "tp_size", "internode_ll.cu",
        "--eplb-algorithm", "VLLM_PLUGINS", "SGLANG_PLUGINS", "VLLM_RAY_EXTRA_ENV_VAR_PREFIXES_TO_COPY=PLACEMENT_",
    }
)  # fmt: skip
#: Files that a reader has, or that a command writes.
EXAMPLES = frozenset(
    {
        "plan.json", "summary.md", "next.json", "front.json", "report.html", "mine.yaml",
        "my_cluster.yaml", "my_scenario.yaml", "my_trace.npz", "new.npz",
        "t.npz", "law.npz", "intent.npz", "summary.npz", "config.json", "hf_quant_config.json",
        "path/to/config.json", "serving.csv",
        "published.csv", "../shared/traces",
        "aggregated/expert_location.json", "aggregated/node-0.sh", "aggregated/node-1.sh", "node-1.sh",
        "kubernetes.yaml", "compose.yaml", "instances.csv", "prefill/", "decode/",
        "aggregated/config.yaml", "aggregated/placement_pattern.npy",
        "R/bounds", "R/L/reachP/tokens", "R/L/reachP/tables", "R/L/packingI/where", "R/L/packingI/split",
        "env.yaml", "preset.json", "/dev/nvidia-caps-imex-channels",
        "aggregated/eplb.npz", "expert_map.json", "expert_map.jsonl", "expert_map_by_model.json",
        ".json", ".npz", ".npy", ".venv", "solvers/experts/search/__pycache__/*.nb?",
    }
)  # fmt: skip
#: Options and variables of engines and of their libraries.
SWITCHES = frozenset(
    name
    for listed in (
        *yaml.safe_load((ROOT / "placement/engines/launch/switches.yaml").read_text()).values(),
        *(yaml.safe_load(path.read_text()) for path in (ROOT / "placement/engines/settings/names").glob("*.yaml")),
    )
    for name in (*listed.get("options", ()), *listed.get("variables", ()))
)
COMMAND = re.compile(r"(placement|python -m (?:placement|bench)[\w.]*|make|pip install)(?= |$)")
SUFFIX = re.compile(r"\.(py|md|yaml|yml|json|npz|npy|toml|svg|csv)$")
NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


# What exists


@dataclass
class Known:
    """Names in the sources.

    Attributes:
        definitions: functions and classes. members: class -> its methods, fields and attributes.
        names: definitions, variables, parameters, attributes. words: identifiers in strings and YAML files.
        strings: whole string constants.
    """

    definitions: set[str] = field(default_factory=set)
    members: dict[str, set[str]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    strings: set[str] = field(default_factory=set)

    def has(self, name: str) -> bool:
        return name in self.names or name in self.words or name in FOREIGN


@cache
def known() -> Known:
    found = Known()
    for package in PACKAGES:
        found.names.add(package)
        for path in sorted((ROOT / package).rglob("*.py")):
            found.names.update(path.relative_to(ROOT).with_suffix("").parts)
            _read_source(ast.parse(path.read_text()), found)
        for path in sorted((ROOT / package).rglob("*.yaml")):
            found.words.add(path.stem)
            found.words.update(re.findall(r"[A-Za-z_]\w*", re.sub(r"(?m)#.*$", "", path.read_text())))
    found.words.update(targets())
    return found


def _read_source(tree: ast.Module, found: Known) -> None:
    told = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
        and isinstance(node.body[0], ast.Expr)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.definitions.add(node.name)
        if isinstance(node, ast.ClassDef):
            found.members.setdefault(node.name, set()).update(_members(node))
        for attribute in ("name", "id", "attr", "arg"):
            value = getattr(node, attribute, None)
            if isinstance(value, str):
                found.names.add(value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            found.strings.add(node.value)
            found.words.update(re.findall(r"[A-Za-z_]\w*", node.value))
            # Words that are no identifiers, such as `first-half`.
            found.words.update(re.findall(r"[\w-]+", node.value))


def _members(node: ast.ClassDef) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.FunctionDef):
            yield each.name
        elif isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            yield each.target.id
        elif isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "self":
            yield each.attr
        elif isinstance(each, ast.Assign):
            yield from (target.id for target in each.targets if isinstance(target, ast.Name))


def resolves(dotted: str) -> bool:
    """Whether placement.x.y is a package, a module, or something that a module defines."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:cut])
        source = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if not source.exists():
            continue
        scope: list[ast.stmt] = ast.parse(source.read_text()).body
        for name in parts[cut:]:
            node = next((each for each in scope if name in _bound(each)), None)
            if node is None:
                return False
            scope = getattr(node, "body", [])
        return True
    return False


def _bound(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.ImportFrom | ast.Import):
        return {alias.asname or alias.name for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


@cache
def targets() -> frozenset[str]:
    return frozenset(re.findall(r"(?m)^([a-z]\w*):", (ROOT / "Makefile").read_text()))


@cache
def catalog() -> frozenset[str]:
    from specs.loading import catalog_names

    return frozenset(catalog_names("scenario"))


@cache
def extras() -> frozenset[str]:
    return frozenset(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


@cache
def roots() -> dict[str, click.Command]:
    from bench.cli import cli as bench
    from placement.cli.main import cli

    return {"placement": cli, "bench": bench}


def module_command(module: str) -> click.Command | None:
    """The command of `python -m MODULE`; None where it is no click command."""
    package, _, name = module.rpartition(".")
    if package == "placement" and (ROOT / module.replace(".", "/")).with_suffix(".py").exists():
        module = f"placement.cli.{name}"
    file = ROOT.joinpath(*module.split("."))
    found = importlib.import_module(f"{module}.main" if (file / "main.py").exists() else module)
    command = getattr(found, "command", None)
    return command if isinstance(command, click.Command) else None


def _context(command: click.Command) -> click.Context:
    """As commands run: click keeps a command's help option as it was first asked for."""
    return click.Context(command, help_option_names=["-h", "--help"])


def options(command: click.Command) -> dict[str, click.Option]:
    mine = [each for each in command.get_params(_context(command)) if isinstance(each, click.Option)]
    return {name: each for each in mine for name in (*each.opts, *each.secondary_opts)}


@cache
def every_command() -> tuple[click.Command, ...]:
    alone = (module_command("bench.alltoall"), module_command("bench.experts"))
    return (*filter(None, alone), *_below(*roots().values()))


@cache
def extra_arguments() -> frozenset[str]:
    """What the lab's targets take beside the options of its command."""
    from bench.lab.discover import targets

    return frozenset(f"--{each.name.replace('_', '-')}" for target in targets() for each in target.option_fields)


def _below(*commands: click.Command) -> Iterator[click.Command]:
    for command in commands:
        yield command
        if isinstance(command, click.Group):
            context = _context(command)
            yield from _below(*filter(None, (command.get_command(context, n) for n in command.list_commands(context))))


# What a text says


@dataclass(frozen=True)
class Block:
    """A block of code and its language ("" where it says none)."""

    language: str
    text: str


def spans_and_blocks(text: str) -> tuple[list[str], list[Block]]:
    """([spans in backticks], [blocks, fenced or indented by four])."""
    blocks = [Block(m[1], m[2]) for m in re.finditer(r"(?ms)^```(\w*)\n(.*?)^```", text)]
    prose = re.sub(r"(?ms)^```.*?^```", "", text)
    indented = r"(?m)(?:(?<=\n\n)|\A)(?: {4}\S.*\n(?:(?: {4}.*)?\n)*)"
    blocks += [Block("", m[0]) for m in re.finditer(indented, prose)]
    prose = re.sub(indented, "", prose)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)], blocks


def faults(text: str) -> list[str]:
    """Every name that a text states and that does not exist."""
    spans, blocks = spans_and_blocks(text)
    found = [fault for span in spans for fault in span_faults(span)]
    for block in blocks:
        if block.language == "python":
            found += import_faults(block.text)
        elif block.language in ("", "sh"):
            for line in block.text.replace("\\\n", " ").splitlines():
                if COMMAND.match(line.strip()):
                    found += command_faults(line.strip())
                elif block.language == "":
                    found += [fault for name in NAME.findall(line) if "_" in name for fault in name_faults(name)]
    return found


def span_faults(span: str) -> list[str]:
    if span in FOREIGN | SWITCHES or span in EXAMPLES or re.fullmatch(r"[A-Z.:a-z]*::[A-Z]+", span):
        return []
    if COMMAND.match(span):
        return command_faults(span)
    first, _, rest = span.partition(" ")
    if rest.startswith("--"):
        return _told_with_options(first, rest)
    if span.startswith("--"):
        return option_faults(span)
    if re.fullmatch(r"placement\[\w+\]", span):
        return [] if span[10:-1] in extras() else [f"{span}: no such extra"]
    if re.fullmatch(r"placement\.\w+/\d+", span):
        return [] if span in known().strings else [f"{span}: no such schema"]
    if " " not in span and ("/" in span or SUFFIX.search(span)):
        return path_faults(span)
    if span.split(".")[0] in PACKAGES and NAME.fullmatch(span) and "." in span:
        return [] if resolves(span) else [f"{span}: does not resolve"]
    if NAME.fullmatch(span):
        return name_faults(span)
    found = []
    for match in NAME.finditer(span):
        called = "_" in match[0] and span[match.end() :].startswith("(")
        if called or re.search(r"[a-z][A-Z]", match[0]):
            found += definition_faults(match[0])
        elif "_" in match[0]:
            found += name_faults(match[0])
    return found


def _told_with_options(command: str, rest: str) -> list[str]:
    """Of a span such as `evaluate --weight-levels`."""
    if resolves(command):
        found = module_command(command)
        return [] if found is None else _unknown_options(found, rest.split(), command)
    return command_faults(f"placement {command} {rest}")


def option_faults(span: str) -> list[str]:
    """Of options by themselves, each of any command; values of --strategy, --phase and the like are checked, too."""
    found, words = [], span.split()
    for word, value in zip_longest(words, words[1:], fillvalue=""):
        if not word.startswith("--"):
            continue
        owners = [options(each)[word] for each in every_command() if word in options(each)]
        if not owners and word not in extra_arguments():
            found.append(f"{span}: no command has {word}")
        elif owners and value and not value.startswith("--") and all(value_faults(each, value) for each in owners):
            found.append(f"{span}: {value} is no value of {word}")
    return found


def value_faults(option: click.Option, value: str) -> list[str]:
    if value.isupper() or SUFFIX.search(value):
        return []
    if isinstance(option.type, click.Choice) and value not in option.type.choices:
        return [f"{value} is no value of {option.opts[0]}"]
    if "--spec" in option.opts and value not in catalog():
        return [f"{value} is no scenario"]
    if "--strategy" in option.opts:
        from solvers.registry import SOLVERS

        return [] if value in SOLVERS else [f"{value} is no strategy"]
    return []


def command_faults(line: str) -> list[str]:
    """Of a command line: an unknown command, option or value."""
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        names = [word for word in words[1:] if "=" not in word]
        return [f"make {name}: no such target" for name in names if name not in targets()]
    if words[:2] == ["pip", "install"]:
        return [fault for word in words[2:] for fault in span_faults(word)]
    module = "placement" if words[0] == "placement" else words[2]
    rest = words[1:] if words[0] == "placement" else words[3:]
    if module not in roots() and not resolves(module):
        return [f"{line}: no module {module}"]
    command = roots().get(module) or module_command(module)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-") and not rest[0].isupper():
        child = command.get_command(_context(command), rest[0])
        if child is None:
            return [f"{line}: no command {rest[0]}"]
        command, rest = child, rest[1:]
    return [] if command is None else _unknown_options(command, rest, line)


def _unknown_options(command: click.Command, words: list[str], line: str) -> list[str]:
    mine, found = options(command), []
    if command.ignore_unknown_options:
        # A benchmark that reads its arguments itself.
        return []
    for word, value in zip_longest(words, words[1:], fillvalue=""):
        if word.startswith("--") and word not in mine:
            found.append(f"{line}: no option {word}")
        elif word in mine and not mine[word].is_flag and value:
            found += [f"{line}: {fault}" for fault in value_faults(mine[word], value)]
    return found


def path_faults(span: str) -> list[str]:
    where = (ROOT / span, ROOT / "docs" / span)
    inside = any(path.name == span for package in PACKAGES for path in (ROOT / package).rglob(f"*{span}"))
    return [] if any(path.exists() for path in where) or ("/" not in span and inside) else [f"{span}: no such file"]


def name_faults(name: str) -> list[str]:
    first, *rest = name.split(".")
    if name in FOREIGN | SWITCHES or name.isupper():
        return [] if known().has(name) or "_" not in name else [f"{name}: no such constant"]
    if re.search(r"[a-z][A-Z]", first):
        return definition_faults(name)
    return [f"{name}: {part} is no name in the sources" for part in (first, *rest) if not known().has(part)]


def definition_faults(name: str) -> list[str]:
    """Of something called, or a class: it is defined, and so is what is asked of it."""
    first, *rest = name.split(".")
    if name in FOREIGN | SWITCHES or first in FOREIGN | SWITCHES:
        return []
    if first not in known().definitions:
        return [f"{name}: nothing defines {first}"]
    members = known().members.get(first)
    return [f"{name}: {first} has no {part}" for part in rest[:1] if members is not None and part not in members]


def import_faults(code: str) -> list[str]:
    """Of imports from modules of this project; what the package itself exports is its own tests' matter."""
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    named = [f"{node.module}.{alias.name}" for node in nodes for alias in node.names]
    return [
        f"{name}: does not resolve"
        for name in named
        if name.split(".")[0] in PACKAGES and name.count(".") > 1 and not resolves(name)
    ]


def link_faults(path: Path, text: str) -> list[str]:
    """Links to files that are not there, or to headings that they don't have."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"(?ms)^```.*?^```", "", text)):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        to = path if not file else path.parent / file
        if not to.exists():
            found.append(f"{target}: no such file")
        elif heading and heading not in {_anchor(line) for line in re.findall(r"(?m)^#+ (.*)$", to.read_text())}:
            found.append(f"{target}: no such heading")
    return found


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# Tests


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_in_a_document_exists(path: Path) -> None:
    text = path.read_text()
    assert not faults(text) + link_faults(path, text)


def test_every_exception_is_needed() -> None:
    spans = {span for path in DOCUMENTS for span in spans_and_blocks(path.read_text())[0]}
    blocks = "".join(block.text for path in DOCUMENTS for block in spans_and_blocks(path.read_text())[1])
    assert not [name for name in sorted(FOREIGN | EXAMPLES) if name not in spans and name not in blocks]


@pytest.mark.parametrize(
    "text",
    [
        "`placement/cost/nowhere.py`", "`docs/nowhere.md`", "`solvers/nowhere/`", "`nowhere.yaml`",
        "`placement.cost.nowhere`", "`bench.nowhere`", "`placement.records.files.write_texts`", "`placement.plan/99`",
        "`NoSuchClass`", "`LayerScore.objectives`", "`no_such_function(x)`", "`score_layers(problem, slots)`",
        "`no_such_field`", "`split.no_such_field`", "`nosuchword`", "`NO_SUCH_CONSTANT`",
        "`--no-such-option`", "`evaluate --out`", "`--strategy fastest`", "`--dispatch nearby`",
        "`placement[nothing]`", "`gpt_oss_120b_gb200_ibx`", "`placement sovle --spec dgx_a100_175b`",
        "`python -m bench run placement_qualities`", "`make slove`", "`a = no_such_rate * tokens_per_gpu`",
        "```sh\nplacement solve --sed 3\n```", "```sh\nplacement solve --spec nowhere\n```",
        "```sh\npython -m placement.nowhere --spec dgx_a100_175b\n```", "```sh\nmake smoothe\n```",
        "```sh\nplacement deploy --mode mixt\n```", "```sh\npython -m bench.alltoall --plans plan.json\n```",
        "```sh\npip install 'placement[nothing]'\n```", "text\n\n    no_such_s = prefill_overhead_s\n",
        "```python\nfrom placement.compat.eplb import rebalance_expert\n```",
    ],
)  # fmt: skip
def test_a_wrong_name_is_found(text: str) -> None:
    assert faults(text)


@pytest.mark.parametrize(
    ("document", "name"),
    [
        ("README.md", "--max-moves-percent"), ("README.md", "rebalance_experts"),
        ("docs/formulation.md", "_add_load_cap"), ("docs/cost-model.md", "rank_stall"),
        ("docs/formats.md", "physical_to_logical"), ("docs/commands.md", "--weight-levels"),
        ("docs/alltoall.md", "uplink_mbit_per_s"), ("docs/routing.md", "split_by_sequence"),
    ],
)  # fmt: skip
def test_a_renamed_name_is_found(document: str, name: str) -> None:
    text = (ROOT / document).read_text()
    assert name in text
    assert faults(text.replace(name, f"{name}_old" if "_" in name else f"{name}-old"))


@pytest.mark.parametrize("target", ["docs/nowhere.md", "docs/formulation.md#no-such-heading"])
def test_a_broken_link_is_found(target: str) -> None:
    assert link_faults(ROOT / "README.md", f"[there]({target})")
