"""Kubernetes (LeaderWorkerSet) and Docker Compose files that run the launch scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from placement.engines.launch.base import Launcher
from placement.engines.launch.scripts import PORTS, script_name
from placement.engines.launch.site import Site

#: What the manifests ask for beside the scripts' own placeholders.
MANIFEST_PLACEHOLDERS = {
    "IMAGE": "the engine's container image, with this package in it where the README asks for the plug-in",
    "CLAIM": "a PersistentVolumeClaim that holds this folder, readable by many pods",
}
_MOUNT = "/placement"


def kubernetes(launcher: Launcher, sites: Sequence[Site]) -> str:
    """One LeaderWorkerSet a role: a group of pods is an instance, a pod one of its OS nodes."""
    return yaml.safe_dump_all([_worker_set(launcher, site) for site in sites], sort_keys=False, width=100)


def _worker_set(launcher: Launcher, site: Site) -> dict[str, Any]:
    # The set's controller gives every pod these two variables.
    start = f'HEAD_ADDRESS="$LWS_LEADER_ADDRESS" exec bash {_MOUNT}/{site.folder}/node-"$LWS_WORKER_INDEX".sh'
    container = {
        "name": launcher.name,
        "image": "$IMAGE",
        "command": ["bash", "-c", start],
        "env": [
            *({"name": name, "value": f"${name}"} for name in site.checkpoints),
            {"name": "NODE_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
        "ports": [{"containerPort": PORTS["PORT"]}],
        "resources": {"limits": {launcher.accelerator: site.node_gpus}},
        "securityContext": {"capabilities": {"add": ["IPC_LOCK"]}},
        "volumeMounts": [
            {"name": "placement", "mountPath": _MOUNT, "readOnly": True},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    template = {
        "metadata": {"labels": {"role": site.folder}},
        "spec": {
            "containers": [container],
            "volumes": [
                {"name": "placement", "persistentVolumeClaim": {"claimName": "$CLAIM", "readOnly": True}},
                {"name": "shm", "emptyDir": {"medium": "Memory"}},
            ],
        },
    }
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": f"placement-{site.folder}"},
        "spec": {
            "replicas": site.split.instances,
            "leaderWorkerTemplate": {
                "size": site.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "workerTemplate": template,
            },
        },
    }


def compose(launcher: Launcher, sites: Sequence[Site], router: str = "") -> str:
    """One service for each OS node of an instance of each role, each with a profile of its own name, and the router.

    The variable INSTANCE says of which instance; a script tells what it misses.

    Args:
        router: The file of the router's script; "" for none.
    """
    services: dict[str, dict[str, Any]] = {}
    several = sum(site.split.instances for site in sites) > 1
    for site in sites:
        for node in range(site.nodes):
            name = f"{site.folder}-{node}"
            # Of several instances on a machine the script picks its own devices.
            count = "all" if several else site.node_gpus
            device = {"driver": "nvidia", "count": count, "capabilities": ["gpu"]}
            services[name] = {
                "image": "${IMAGE:?set it}",
                "profiles": [name],
                "command": ["bash", f"{_MOUNT}/{site.folder}/{script_name(node)}"],
                "environment": {
                    **{name: f"${{{name}:?set it}}" for name in site.checkpoints},
                    **{name: f"${{{name}:-}}" for name in ("INSTANCE", "HEAD_ADDRESS", "NODE_ADDRESS", *PORTS)},
                },
                "network_mode": "host",
                "ipc": "host",
                "ulimits": {"memlock": -1},
                "volumes": [f".:{_MOUNT}:ro"],
                "deploy": {"resources": {"reservations": {"devices": [device]}}},
            }
    if router:
        services["router"] = {
            "image": "${IMAGE:?set it}",
            "profiles": ["router"],
            "command": ["bash", f"{_MOUNT}/{router}"],
            "environment": {name: f"${{{name}:-}}" for name in ("PROXY", "ROUTER_PORT", *PORTS)},
            "network_mode": "host",
            "volumes": [f".:{_MOUNT}:ro"],
        }
    return yaml.safe_dump({"services": services}, sort_keys=False, width=100)
