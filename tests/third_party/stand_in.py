"""A stand-in for torchvision, so that timm's optimizers can be imported where there is no build of it."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from typing import Any


class _Any(type):
    """A class of which every attribute is there, and another one."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _Any(name, (), {})
        setattr(cls, name, made)
        return made


class _Module(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _Any(name, (), {"__init__": lambda self, *args, **kwargs: None})
        setattr(self, name, made)
        return made


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name == "torchvision" or name.startswith("torchvision."):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        made = _Module(spec.name)
        made.__path__ = []
        made.__version__ = "0.99.0"
        return made

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def put_in_place() -> None:
    """Let `import torchvision` and its modules succeed, unless the real one is there."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_Finder())
