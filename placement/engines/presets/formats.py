"""A preset as shell exports, as a `.env` file, as `env` of a Kubernetes container, as JSON; and as a launch script."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator

import yaml

from placement.engines.launch.scripts import PORTS
from placement.engines.launch.switches import PLACEHOLDERS, shell_word
from placement.engines.launch.vllm import VllmLauncher
from placement.engines.presets.preset import Entry, Preset, command_options
from placement.engines.presets.served import Served


def _head(preset: Preset) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in preset.versions.items())
    yield f"# {preset.engine} on {preset.fabric} ({preset.cluster}): {preset.instance}, backend {preset.backend}"
    yield f"# names of {versions}"
    if not preset.variables:
        yield "# Nothing has to be set."


def _why(entry: Entry) -> Iterator[str]:
    """Comments of a variable that is set."""
    yield f"# {entry.reason}. ({entry.need})"
    if entry.formula:
        yield f"# {entry.formula}"
    yield f"# {entry.document}"


def _not_set(preset: Preset) -> Iterator[str]:
    """Comments on what is not set."""
    for title, entries in (("Ask the site for", preset.ask_the_site), ("Measure first", preset.measure_first)):
        variables = [entry for entry in entries if entry.kind == "variable"]
        if variables:
            yield from ("", f"# {title}:")
        for entry in variables:
            value = f"={entry.value}" if entry.value is not None else f": {entry.formula}"
            yield f"#   {entry.name}{value}. {entry.reason}."


def _lines(preset: Preset, assign: Callable[[str, str], str]) -> str:
    lines = list(_head(preset))
    for entry in preset.variables:
        lines += ["", *_why(entry), assign(entry.name, entry.value or "")]
    return "\n".join([*lines, *_not_set(preset), ""])


def shell_text(preset: Preset) -> str:
    """Exports to be sourced by a shell."""
    # Always quoted: a value may begin with "=", which some shells expand.
    return _lines(preset, lambda name, value: f"export {name}='{value}'")


def dotenv_text(preset: Preset) -> str:
    """Lines NAME=value, as `docker run --env-file` reads them: nothing is quoted.

    Raises:
        ValueError: A value has more than one line.
    """

    def assign(name: str, value: str) -> str:
        if "\n" in value:
            raise ValueError(f"{name} has a line break")
        return f"{name}={value}"

    return _lines(preset, assign)


def kubernetes_text(preset: Preset) -> str:
    """The `env` of a container, in YAML."""
    env = [{"name": entry.name, "value": entry.value or ""} for entry in preset.variables]
    body = yaml.safe_dump({"env": env}, sort_keys=False, width=100)
    return "\n".join([*_head(preset), body.rstrip("\n"), *_not_set(preset), ""])


def json_text(preset: Preset) -> str:
    """The whole preset, options, reasons and documents among it."""
    return json.dumps(preset.model_dump(by_alias=True), indent=1) + "\n"


def serve_script(served: Served, preset: Preset) -> str:
    """A bash script that sources env.sh beside it and becomes vLLM on an OS node (NODE_RANK) of an instance."""
    nodes = [command_options(served, node) for node in range(min(served.nodes, 2))]
    words = [[" ".join([each.name, *_value(each.value)]) for each in options] for options in nodes]
    shared = [word for word in words[0] if all(word in other for other in words)]
    used = " ".join(word for node in words for word in node) + (" $MODEL" if preset.model == "$MODEL" else "")
    lines = [
        "#!/usr/bin/env bash",
        f"# {preset.engine} {preset.versions[preset.engine]} on {preset.fabric}: {preset.instance}.",
        "set -euo pipefail",
        'HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"',
        '. "$HERE/env.sh"',
    ]
    for name, meaning in PLACEHOLDERS.items():
        if f"${name}" in used:
            default = f":={PORTS[name]}" if name in PORTS else ":?is not set"
            lines += [f"# {meaning[0].upper()}{meaning[1:]}.", f': "${{{name}{default}}}"']
    lines += ["", "args=(", *(f"  {word}" for word in shared), ")"]
    if len(nodes) > 1:
        lines += ["# Number of this OS node in the instance.", ': "${NODE_RANK:?is not set}"']
        lines += ['args+=(--node-rank "$NODE_RANK")', 'if [ "$NODE_RANK" = 0 ]; then']
        for own, keyword in zip(words, ("else", "fi"), strict=True):
            alone = [word for word in own if word not in shared and not word.startswith("--node-rank")]
            lines += [f"  args+=({' '.join(alone)})", keyword]
    model = '"$MODEL"' if preset.model == "$MODEL" else shlex.quote(preset.model)
    lines += [f'exec {" ".join(VllmLauncher.switches.program)} {model} "${{args[@]}}"', ""]
    return "\n".join(lines)


def _value(value: str | None) -> list[str]:
    return [] if value is None else [shell_word(value)]
