"""Launch scripts: one for each OS node of an instance, the same for every instance of a role."""

from __future__ import annotations

from placement.engines.launch.base import Launcher
from placement.engines.launch.site import Site
from placement.engines.launch.switches import PLACEHOLDERS, needed, shell_word
from placement.engines.launch.trtllm import CONFIG

#: Ports where nothing else is said.
PORTS = {"PORT": 8000, "RENDEZVOUS_PORT": 29500, "RANKS_PORT": 29550, "TRANSFER_PORT": 8998}


def script_name(node: int) -> str:
    """The file of a node's launch script."""
    return f"node-{node}.sh"


def launch_script(launcher: Launcher, site: Site, node: int, many: bool = False) -> str:
    """A bash script that becomes the engine's process on one OS node of an instance; `many`: there are several."""
    options, variables = tuple(launcher.options(site, node)), tuple(launcher.variables(site, node))
    used = " ".join([*(each.value or "" for each in options), *(each.value for each in variables)])
    used += "".join(f" ${name}" for name in site.checkpoints)
    lines = [
        "#!/usr/bin/env bash",
        f"# {site.scenario.engine.label}: {site.folder}, OS node {node} of {site.nodes} of an instance, "
        f"{site.node_gpus} GPUs. README.md says how to start it.",
        "set -euo pipefail",
        'HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"',
    ]
    if many:
        lines += [
            "# INSTANCE: number of the instance in instances.csv.",
            f'[ -z "${{INSTANCE:-}}" ] || . "$HERE/../instance.sh" {site.folder} {node}',
        ]
    for name, meaning in PLACEHOLDERS.items():
        if f"${name}" in used:
            default = f': "${{{name}:={PORTS[name]}}}"' if name in PORTS else needed(name, "README.md says what it is")
            lines += [f"# {meaning[0].upper()}{meaning[1:]}.", default]
    lines.append("")
    for each in variables:
        lines += [f"# {each.reason[0].upper()}{each.reason[1:]}.", f"export {each.name}={shell_word(each.value)}"]
    if CONFIG in launcher.files(site):
        # The engine reads paths in its config as they stand.
        names = ["HERE", *(name for name in site.checkpoints if name != "MODEL")]
        lines += [
            "# The config with the folder's own path.",
            'CONFIG="$(mktemp)"',
            f'sed "{"; ".join(f"s|@{name}@|${name}|g" for name in names)}" "$HERE/{CONFIG}" > "$CONFIG"',
        ]
    words = [*launcher.program(site), *(['"$MODEL"'] if launcher.model_word else [])]
    lines += ["", "args=("]
    for option in options:
        value = "" if option.value is None else " " + shell_word(option.value.replace(f"$HERE/{CONFIG}", "$CONFIG"))
        lines += [f"  # {option.reason[0].upper()}{option.reason[1:]}.", f"  {option.name}{value}"]
    lines += [")", f'exec {" ".join(words)} "${{args[@]}}"', ""]
    return "\n".join(lines)
