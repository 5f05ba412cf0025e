"""A class and its arguments, as a config describes them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jsonargparse import Namespace

from lightning_synther.agents.agent import Agent


def import_class(path: str) -> Any:
    """The class at a dotted path, as configs and checkpoints name it."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def class_path(instance: object) -> str:
    """The dotted path of the class of ``instance``."""
    cls = type(instance)
    return f"{cls.__module__}.{cls.__qualname__}"


@dataclass(frozen=True)
class ModuleConfig:
    """A class and the arguments that the config file gives it; sizes are added when they are known."""

    cls: type[Any]
    init_args: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Namespace) -> ModuleConfig:
        """What a parsed config describes by ``class_path`` and ``init_args``."""
        return cls(import_class(config.class_path), config.get("init_args", Namespace()).as_dict())

    def build(self, **sizes: Any) -> Any:
        """Instantiate with the sizes that only the data tell."""
        return self.cls(**{**self.init_args, **sizes})

    def extensible(self, length: str) -> str | None:
        """``length``, the input that counts updates, if a longer training merely goes on where a shorter one ended."""
        return length if issubclass(self.cls, Agent) and self.cls.extensible(self.init_args) else None

    def inputs(self) -> dict[str, Any]:
        """For the fingerprint of a stage."""
        return {"class": self.cls.__name__, **self.init_args}
