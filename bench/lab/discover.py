"""Finds the targets: one of each file in `bench/lab/targets`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import bench.lab.targets as package
from bench.lab.target import Target


def targets() -> tuple[Target[Any], ...]:
    """The lab's targets, by name.

    Raises:
        TypeError: A file that defines no `TARGET` of its own name.
    """
    found = []
    for each in sorted(pkgutil.iter_modules(package.__path__), key=lambda one: one.name):
        module = importlib.import_module(f"{package.__name__}.{each.name}")
        target = getattr(module, "TARGET", None)
        if not isinstance(target, Target) or target.name != each.name:
            raise TypeError(f"{module.__name__} defines no TARGET named {each.name!r}")
        found.append(target)
    return tuple(found)
