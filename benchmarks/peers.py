"""State updates of d3rlpy and torchrl, by their own public parts, for `bench_agents.py`.

Each maker returns a function that makes one gradient update of everything that the algorithm trains, on the
batch it was given: losses, optimizers, target networks. Networks are two hidden layers of 256, learning
rates 3e-4, two critics; on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lightning_synther.transition import Transition

WIDTHS, LR, TAU, GAMMA = [256, 256], 3e-4, 0.005, 0.99
Update = Callable[[], Any]


def d3rlpy_update(algorithm: str, batch: Transition) -> Update:
    """d3rlpy's update on a batch that is on the device already, as its trainer calls it."""
    from d3rlpy import algos
    from d3rlpy.torch_utility import TorchMiniBatch

    sizes = {"batch_size": len(batch.action), "gamma": GAMMA, "tau": TAU}
    config = {
        "SAC": lambda: algos.SACConfig(**sizes),
        "TD3+BC": lambda: algos.TD3PlusBCConfig(**sizes),
        "IQL": lambda: algos.IQLConfig(**sizes),
        "CQL": lambda: algos.CQLConfig(**sizes),
    }[algorithm]()
    algo = config.create(device="cpu:0")
    algo.create_impl((batch.observation.shape[1],), batch.action.shape[1])
    made = TorchMiniBatch(
        observations=batch.observation,
        actions=batch.action,
        rewards=batch.reward,
        next_observations=batch.next_observation,
        next_actions=batch.action,
        returns_to_go=batch.reward,
        terminals=torch.zeros_like(batch.reward),
        intervals=torch.ones_like(batch.reward),
        device="cpu:0",
    )
    step = iter(range(1 << 60))
    return lambda: algo.impl.update(made, next(step))


def torchrl_update(algorithm: str, batch: Transition) -> Update:
    """torchrl's loss module, one Adam over its parameters, and `SoftUpdate`."""
    from tensordict import TensorDict
    from torchrl.objectives import SoftUpdate

    loss = _torchrl_loss(algorithm, batch.observation.shape[1], batch.action.shape[1])
    loss.make_value_estimator(gamma=GAMMA)
    updater, size = SoftUpdate(loss, tau=TAU), len(batch.action)
    done = torch.zeros(size, 1, dtype=torch.bool)
    following = {"observation": batch.next_observation, "reward": batch.reward}
    data = TensorDict(
        {
            "observation": batch.observation,
            "action": batch.action,
            "next": {**following, "done": done, "terminated": done.clone()},
        },
        [size],
    )
    optimizer = torch.optim.Adam(loss.parameters(), lr=LR)

    def update() -> None:
        losses = loss(data)
        total = sum(value for key, value in losses.items() if key.startswith("loss_"))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        updater.step()

    return update


def _torchrl_loss(algorithm: str, observation_dim: int, action_dim: int) -> Any:
    from tensordict.nn import TensorDictModule, TensorDictSequential
    from torch import nn
    from torchrl.data import Bounded
    from torchrl.modules import (
        MLP,
        NormalParamExtractor,
        ProbabilisticActor,
        TanhModule,
        TanhNormal,
        ValueOperator,
    )
    from torchrl.objectives import CQLLoss, IQLLoss, REDQLoss, SACLoss, TD3BCLoss

    spec = Bounded(-1.0, 1.0, (action_dim,))

    def mlp(n_in: int, n_out: int) -> nn.Module:
        return MLP(in_features=n_in, out_features=n_out, num_cells=WIDTHS, activation_class=nn.ReLU)

    q = ValueOperator(mlp(observation_dim + action_dim, 1), in_keys=["observation", "action"])
    if algorithm == "TD3+BC":
        policy = TensorDictModule(
            mlp(observation_dim, action_dim), in_keys=["observation"], out_keys=["param"]
        )
        actor = TensorDictSequential(policy, TanhModule(in_keys=["param"], out_keys=["action"], spec=spec))
        return TD3BCLoss(actor, q, num_qvalue_nets=2, action_spec=spec)
    network = nn.Sequential(mlp(observation_dim, 2 * action_dim), NormalParamExtractor())
    actor = ProbabilisticActor(
        TensorDictModule(network, in_keys=["observation"], out_keys=["loc", "scale"]),
        in_keys=["loc", "scale"],
        spec=spec,
        distribution_class=TanhNormal,
        return_log_prob=True,
    )
    if algorithm == "IQL":
        value = ValueOperator(mlp(observation_dim, 1), in_keys=["observation"])
        return IQLLoss(actor, q, value, num_qvalue_nets=2)
    if algorithm == "CQL":
        return CQLLoss(actor, q, action_spec=spec, num_random=10)
    if algorithm == "REDQ":
        return REDQLoss(actor, q, num_qvalue_nets=10, sub_sample_len=2, action_spec=spec)
    return SACLoss(actor, q, num_qvalue_nets=2, action_spec=spec)
