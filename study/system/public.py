"""Give a package public names that are imported when they are first used, so that importing the package stays fast.

    make_public("study", {"train": "study.train"})    # `from study import train` is then the function of that module

Python sets a package's attribute to a submodule when this is imported. A public name keeps its function or class also
where a submodule, such as that of a command, has the same name.
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    """A package that imports the names of `_places` from their modules."""

    _places: Mapping[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in self._places:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(import_module(self._places[name]), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in self._places and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._places})


def make_public(package: str, places: Mapping[str, str]) -> None:
    """Let a package have public names, each with the module that defines it."""
    module = sys.modules[package]
    module.__class__ = type("Package", (_Package,), {"_places": dict(places)})
