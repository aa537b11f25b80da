"""Runs an engine's own modules without the packages that it needs beside torch: stand-ins take their place."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import Any

from pydantic_core import core_schema

#: Packages whose presence tells an engine which hardware it runs on.
HARDWARE = ("amdsmi", "libtpu")


class _Anything(type):
    """A class that has every attribute, may be called, subscripted and joined, and decorates without effect."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _anything(name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else _anything(cls.__name__)

    def __or__(cls, other: Any) -> Any:
        return cls

    def __ror__(cls, other: Any) -> Any:
        return cls

    def __getitem__(cls, item: Any) -> Any:
        return cls

    def __iter__(cls) -> Any:
        return iter(())


def _anything(name: str) -> Any:
    members = {
        "__init_subclass__": classmethod(lambda cls, **_: None),
        "__get_pydantic_core_schema__": classmethod(lambda cls, source, handler: core_schema.any_schema()),
    }
    return _Anything(name, (), members)


class _Module(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = _anything(name)
        setattr(self, name, found)
        return found


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what `engine`'s modules import and nobody else has; `unneeded` modules of its own are not run either."""

    def __init__(self, engine: str, unneeded: tuple[str, ...] = ()) -> None:
        self.engine, self.unneeded = engine, unneeded
        self._packages: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package = name.partition(".")[0]
        if package == self.engine:
            if not name.startswith(self.unneeded or " "):
                return None
        elif package not in self._packages:
            if package in HARDWARE or not self._asked_by_engine():
                return None
            if any(other.find_spec(name, path) for other in sys.meta_path if other is not self):
                return None
            self._packages.add(package)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""

    def _asked_by_engine(self) -> bool:
        """Whether the engine's own code imports: what other packages lack they have their own ways to do without."""
        frame: types.FrameType | None = sys._getframe(2)
        while frame is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        return frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == self.engine
