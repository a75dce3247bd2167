"""Modules that load at first use: reading or checking a config must not pay for importing torch (seconds)."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
    import torch.nn.functional as functional
else:

    class _LazyModule(ModuleType):
        """Stands for a module until one of its attributes is asked for."""

        def __getattr__(self, attribute: str) -> Any:
            return getattr(importlib.import_module(self.__name__), attribute)

    torch = _LazyModule("torch")
    functional = _LazyModule("torch.nn.functional")

__all__ = ["functional", "torch"]
