"""Compares the lists of names with the software itself: `python -m placement.engines.settings.reread --vllm DIR ...`.

DIR is an unpacked wheel. `--write` writes the lists of engines anew. Libraries are compared one way: their binaries
hold more text than names of variables, so that only a name which is gone can be told.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from placement.engines.settings.names import Software, names_of

#: Options of vLLM's server, which its engine's arguments don't have.
_SERVER_OPTIONS = ("--headless", "--host", "--port")
#: Read by os.getenv, beside the list of environ.py.
_BESIDE = ("SGLANG_PP_LAYER_PARTITION",)


def vllm_names(root: Path) -> tuple[set[str], set[str]]:
    """(Options, variables) of the vLLM in an unpacked wheel."""
    variables = set[str]()
    for node in ast.walk(_parsed(root / "vllm/envs.py")):
        if isinstance(node, ast.AnnAssign) and _name(node.target) == "environment_variables":
            variables |= {str(key.value) for key in _keys(node.value)}
    options = {
        each.value
        for node in ast.walk(_parsed(root / "vllm/engine/arg_utils.py"))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument"
        for each in node.args
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value.startswith("--")
    }
    return options | {"--help", *_SERVER_OPTIONS}, variables


def sglang_names(root: Path) -> tuple[set[str], set[str]]:
    """(Options, variables) of the SGLang in an unpacked wheel."""
    options = set[str]()
    for path in sorted((root / "sglang/srt/arg_groups/fields").glob("*.py")):
        for owner in ast.walk(_parsed(path)):
            if isinstance(owner, ast.ClassDef):
                for field in owner.body:
                    if isinstance(field, ast.AnnAssign):
                        options.update(_option_names(field))
    variables = {
        name
        for owner in ast.walk(_parsed(root / "sglang/srt/environ.py"))
        if isinstance(owner, ast.ClassDef) and owner.name == "Envs"
        for field in owner.body
        if isinstance(field, ast.Assign)
        for name in map(_name, field.targets)
        if name.isupper()
    }
    return options, variables | set(_BESIDE)


def missing_from(library: Sequence[Path], names: frozenset[str], prefix: str) -> set[str]:
    """Names that no file of a library holds, whole or without their prefix."""
    held = b"\0".join(path.read_bytes() for path in library)
    return {
        name
        for name in names
        if not any(b"\0" + text.encode() + b"\0" in held for text in (name, name.removeprefix(prefix)))
    }


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _name(node: ast.expr | None) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _keys(node: ast.expr | None) -> Iterator[ast.Constant]:
    if isinstance(node, ast.Dict):
        yield from (key for key in node.keys if isinstance(key, ast.Constant))


def _option_names(field: ast.AnnAssign) -> Iterator[str]:
    """The options of a field `name: A[type, Arg(...)]`; none where it is derived or has no option."""
    annotation = field.annotation
    if not (isinstance(annotation, ast.Subscript) and _name(annotation.value) == "A"):
        return
    own = "--" + _name(field.target).replace("_", "-")
    for call in ast.walk(annotation):
        if isinstance(call, ast.Call) and _name(call.func) in ("Arg", "Derived"):
            told = {each.arg: each.value for each in call.keywords}
            if _name(call.func) == "Derived" or "no_cli" in told:
                return
            if isinstance(given := told.get("cli_name"), ast.Constant):
                own = str(given.value)
            if isinstance(also := told.get("aliases"), ast.List):
                yield from (str(each.value) for each in also.elts if isinstance(each, ast.Constant))
    yield own


def _written(software: Software, options: set[str], variables: set[str]) -> None:
    """Writes an engine's list anew; its head stays."""
    path = Path(str(files("placement.engines.settings") / "names" / f"{software}.yaml"))
    head = path.read_text("utf-8").split("options:")[0]
    lists = "".join(
        f"{key}:\n" + "".join(f"  - {name}\n" for name in sorted(names))
        for key, names in (("options", options), ("variables", variables))
    )
    path.write_text(head + lists, "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints every difference, `+` for a name that a list lacks and `-` for one that is gone; 6 where there is any."""
    parser = argparse.ArgumentParser(prog="python -m placement.engines.settings.reread", description=__doc__)
    parser.add_argument("--vllm", type=Path, metavar="DIR")
    parser.add_argument("--sglang", type=Path, metavar="DIR")
    parser.add_argument("--nccl", type=Path, nargs="+", metavar="FILE", default=[])
    parser.add_argument("--nvshmem", type=Path, nargs="+", metavar="FILE", default=[])
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args(arguments)
    engines: tuple[tuple[Software, Path | None], ...] = (("vllm", asked.vllm), ("sglang", asked.sglang))
    differences: list[str] = []
    for software, root in engines:
        if root is not None:
            options, variables = (vllm_names if software == "vllm" else sglang_names)(root)
            held = names_of(software)
            for sign, names in (
                ("+", (options - held.options) | (variables - held.variables)),
                ("-", (held.options - options) | (held.variables - variables)),
            ):
                differences += [f"{software} {sign} {name}" for name in sorted(names)]
            if asked.write:
                _written(software, options, variables)
    libraries: tuple[tuple[Software, list[Path]], ...] = (("nccl", asked.nccl), ("nvshmem", asked.nvshmem))
    for software, paths in libraries:
        if paths:
            gone = missing_from(paths, names_of(software).variables, f"{software.upper()}_")
            differences += [f"{software} - {name}" for name in sorted(gone)]
    sys.stdout.write("".join(f"{each}\n" for each in differences))
    return 6 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
