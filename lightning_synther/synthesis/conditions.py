"""Computes relevance for whole stores and keeps it beside their rows, before a diffusion model is trained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_synther.agents.agent import Agent
from lightning_synther.data.conditions import (
    available_conditions,
    condition_made_from,
    read_condition,
    write_condition,
)
from lightning_synther.data.store import TransitionStore
from lightning_synther.errors import ConfigError
from lightning_synther.networks.curiosity import CuriosityModule
from lightning_synther.seeding import derive_seed
from lightning_synther.synthesis import relevance
from lightning_synther.transition import Transition, TransitionSpec

log = logging.getLogger(__name__)

COMPUTED = ("reward", "terminal", "return_to_go", "td_error", "curiosity")
"""Names of the relevance functions; other conditions have to lie beside the rows."""
CHUNK = 65_536
CURIOSITY_UPDATES, CURIOSITY_BATCH = 2_000, 256


def compute_conditions(
    stores: Sequence[str | Path],
    names: Sequence[str],
    *,
    seed: int = 0,
    agent: Agent | None = None,
    agent_fingerprint: str = "",
    curiosity_updates: int | None = None,
) -> None:
    """Write the conditions ``names`` beside the rows of ``stores``, where they are not there already.

    What learns (the curiosity module) learns from the first store, and judges all. Somebody's own array of a
    computed name is left alone.

    Args:
        stores: training data first, then held-out data.
        names: relevance functions, or arrays that lie there.
        seed: of what learns.
        agent: whose critic ``td_error`` asks.
        agent_fingerprint: identifies it.
        curiosity_updates: gradient updates of the curiosity module; None for 2,000.

    Raises `ConfigError` for ``td_error`` without an agent, `DataError` for what is neither computed nor there.
    """
    opened = [TransitionStore.open(path) for path in stores]
    updates = CURIOSITY_UPDATES if curiosity_updates is None else curiosity_updates
    for name in names:
        if name not in COMPUTED:
            for store in opened:
                read_condition(store.path, name)
            continue
        made_from = _made_from(name, opened[0], seed, agent_fingerprint, updates)
        pending = [store for store in opened if _is_missing(store, name, made_from)]
        if not pending:
            continue
        log.info("conditions: %s", name)
        compute = _function(name, opened[0], seed, agent, updates)
        for store in pending:
            write_condition(store.path, name, compute(store), made_from)


def _made_from(
    name: str, train: TransitionStore, seed: int, agent_fingerprint: str, updates: int
) -> dict[str, Any]:
    rows = {key: value for key, value in asdict(train.metadata).items() if key != "extra"}
    if name == "td_error":
        return {"rows": rows, "agent": agent_fingerprint}
    return {"rows": rows} | ({"seed": seed, "updates": updates} if name == "curiosity" else {})


def _is_missing(store: TransitionStore, name: str, made_from: Mapping[str, Any]) -> bool:
    if name not in available_conditions(store.path):
        return True
    found = condition_made_from(store.path, name)
    return found is not None and found != made_from


def _function(
    name: str, train: TransitionStore, seed: int, agent: Agent | None, updates: int
) -> Callable[[TransitionStore], Tensor]:
    """The relevance ``name`` as a function of a whole store, (N, 1)."""
    if name == "return_to_go":
        return _return_to_go
    if name == "curiosity":
        module = train_curiosity(train, seed=seed, num_updates=updates)
        return lambda store: _by_chunks(store, lambda part: relevance.curiosity(part, module))
    if name == "td_error":
        if agent is None:
            raise ConfigError(
                "the condition 'td_error' needs an agent, and there is none here: write it with "
                "compute_conditions(..., agent=...), or choose another relevance"
            )
        return lambda store: _by_chunks(store, lambda part: relevance.td_error(part, agent))
    return lambda store: _by_chunks(store, getattr(relevance, name))


def _by_chunks(store: TransitionStore, function: Callable[[Transition], Tensor]) -> Tensor:
    parts = store.mapped.split(CHUNK)
    return torch.cat([function(store.spec.unflatten(part)) for part in parts])


def _return_to_go(store: TransitionStore) -> Tensor:
    extra = store.metadata.extra
    stride = int(extra.get("n_step", 1)) * int(extra.get("views", 1))
    transition = store.spec.unflatten(store.mapped)
    return relevance.return_to_go(transition, read_condition(store.path, "episode"), stride)


def train_curiosity(
    store: TransitionStore, *, seed: int = 0, num_updates: int, lr: float = 1e-3
) -> CuriosityModule:
    """A curiosity module trained on ``store``: seconds on a CPU; a function of rows and ``seed``.

    The global generator is left as it was.
    """
    spec: TransitionSpec = store.spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "curiosity", "init"))
        module = CuriosityModule(spec.observation_dim, spec.action_dim)
    module.standardise(store.mapped[:: max(1, len(store) // CHUNK), spec.fields["observation"]])
    optimizer = torch.optim.Adam(module.parameters(), lr=lr, fused=True)
    for update in range(num_updates):
        rng = np.random.default_rng(derive_seed(seed, "curiosity", update))
        batch = store.gather(rng.integers(len(store), size=CURIOSITY_BATCH))
        forward_error, inverse_error = module.errors(spec.unflatten(batch))
        loss = forward_error.mean() + inverse_error.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval().requires_grad_(False)
