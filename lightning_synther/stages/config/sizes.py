"""What the data, or the encoder of their latents, decide about a model: sizes and environment."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lightning_synther.agents.agent import Agent
from lightning_synther.data.conditions import read_conditions
from lightning_synther.data.state_env import played_env
from lightning_synther.data.store import TransitionStore
from lightning_synther.data.updates import UpdateData
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.errors import ConfigError
from lightning_synther.networks.encoders import read_checkpoint
from lightning_synther.stages.config.dataset import DatasetConfig
from lightning_synther.stages.config.module import ModuleConfig

#: Settings of the data that are paths of stores.
STORES = ("real", "synthetic", "store", "heldout")


def decided_by_data(model: ModuleConfig, data: pl.LightningDataModule) -> dict[str, Any]:
    """Arguments of an agent that its data decide; `ConfigError` where the config, or the agent, does not suit them."""
    if not (isinstance(data, UpdateData) and issubclass(model.cls, Agent)):
        return {}
    data.check_agent(model.cls)
    decided = data.agent_arguments()
    for key, value in decided.items():
        given = model.init_args.get(key)
        pairs = {key: (given, value)}
        if isinstance(given, dict):
            pairs = {f"{key}.{name}": (part, value.get(name)) for name, part in given.items()}
        for name, (ours, theirs) in pairs.items():
            if ours is not None and ours != theirs:
                raise ConfigError(_disagreement(model.cls, name, ours, theirs))
    return decided


def _disagreement(cls: type[Agent], name: str, ours: Any, theirs: Any) -> str:
    """What is wrong where the config says ``ours`` and the data ``theirs``; a default cannot be removed."""
    default = _default(cls, name)
    source = f", which --model={cls.__name__} takes by default" if ours == default else ""
    remedy = "remove it" if default is None else f"give --model.{name}={theirs}"
    return f"model.{name} is {ours!r}{source}, but the data decide it and have {theirs!r}: {remedy}"


def _default(cls: type[Agent], name: str) -> Any:
    """The default of an argument that ``cls`` takes, or hands on to a class above it."""
    for above in cls.__mro__:
        parameter = inspect.signature(above.__init__).parameters.get(name)  # type: ignore[misc]
        if parameter is not None and parameter.default is not parameter.empty:
            return parameter.default
    return None


def sizes_from_stores(model: ModuleConfig, data_args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a model that the data given by hand, or the encoder of their latents, decide."""
    if issubclass(model.cls, LatentDiffusion):
        store = next((data_args[key] for key in STORES if data_args.get(key)), None)
        if store is None:
            raise ConfigError("a diffusion model takes its sizes from its data: give the path of a store")
        names = data_args.get("conditions")
        sizes = read_conditions(store, names)[1] if names else None
        return {"spec": TransitionStore.open(store).spec.to_dict(), "conditions": sizes}
    checkpoint = model.init_args.get("encoder_checkpoint")
    if checkpoint is None:
        return _sizes_of_states(model, data_args)
    theirs = read_checkpoint(checkpoint)["hyper_parameters"].get("env")
    dataset: DatasetConfig | None = data_args.get("dataset")
    ours = model.init_args.get("env") or (dataset.env() if dataset else theirs)
    check_env(ours, theirs, checkpoint)
    return {"env": ours}


def _sizes_of_states(model: ModuleConfig, data_args: Mapping[str, Any]) -> dict[str, Any]:
    """What an agent on states takes from its store, where the config does not give it."""
    path = data_args.get("real") or data_args.get("synthetic")
    if path is None or model.init_args.get("observation") != "states":
        return {}
    store = TransitionStore.open(path)
    known: dict[str, Any] = {
        "observation_dim": store.spec.observation_dim,
        "action_dim": store.spec.action_dim,
    }
    if env := played_env(store.metadata.extra):
        known["env"] = env
    return {name: value for name, value in known.items() if model.init_args.get(name) is None}


def check_env(
    ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None, checkpoint: str | Path
) -> None:
    """Raise `ConfigError` where the config's environment is not the one that a checkpoint was trained for."""
    for key, value in (ours or {}).items():
        found = (theirs or {}).get(key, value)
        if found != value:
            raise ConfigError(
                f"the config's {key} is {value}, but checkpoint {checkpoint} was trained on {key} {found}: "
                "give a config or a checkpoint of the same dataset"
            )
