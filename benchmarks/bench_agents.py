"""Gradient updates of the state agents against d3rlpy's and torchrl's, and of ensembles against their size.

    pip install -e '.[benchmark]'
    python benchmarks/bench_agents.py [--batch 256] [--updates 20] [--repeats 7] [--threads 1]

States of 17 numbers, 6 actions, two hidden layers of 256 in every network, batches on the device; all arms
in turn in one process, so that whatever else the machine does hits all of them. A peer that is not installed,
or does not have the algorithm, is left out. ``update`` is the mean over ``--updates`` in a row, because some
of an algorithm's updates leave the actor out. ``ours_fast`` has float32 products as the command line's runs do
(`stages/trainer/precision.py`), ``ours_bf16`` is bf16-mixed; peers run as they come, in float32.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import peers
import torch
from report import interleaved, save, table

from lightning_synther import agents
from lightning_synther.stages.trainer.precision import use_fast_float32
from lightning_synther.transition import Transition

OBSERVATION_DIM, ACTION_DIM = 17, 6
SIZES = {
    "observation": "states",
    "observation_dim": OBSERVATION_DIM,
    "action_dim": ACTION_DIM,
    "hidden_dim": 256,
    "num_layers": 2,
    "lr": 3e-4,
}
#: Class and settings that make ours compute what the peers do, and the peers that have it.
ALGORITHMS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "SAC": ("SAC", {"actor_every": 1, "layer_norm": False}, ("d3rlpy", "torchrl")),
    "TD3+BC": ("TD3BC", {}, ("d3rlpy", "torchrl")),
    "IQL": ("IQL", {}, ("d3rlpy", "torchrl")),
    "CQL": ("CQLSAC", {"cql_lagrange": True, "actor_lr": 3e-4}, ("d3rlpy", "torchrl")),
    "REDQ": ("REDQ", {"num_critics": 10, "utd_ratio": 1, "policy_update_delay": 1}, ("torchrl",)),
}
MAKERS = {"d3rlpy": peers.d3rlpy_update, "torchrl": peers.torchrl_update}
#: Ensembles of 10 critics against 2.
ENSEMBLES = {"EDAC": {"num_layers": 3}, "REDQ": {"utd_ratio": 20, "policy_update_delay": 20}, "SAC": {}}


def make_batch(size: int) -> Transition:
    """Random states and actions."""
    torch.manual_seed(0)
    action, reward = torch.rand(size, ACTION_DIM) * 2 - 1, torch.rand(size, 1)
    states = torch.randn(2, size, OBSERVATION_DIM)
    return Transition(states[0], action, reward, states[1], torch.full((size, 1), 0.99))


def repeated(update: Callable[[], Any], count: int) -> Callable[[], None]:
    """``count`` updates in a row."""

    def run() -> None:
        for _ in range(count):
            update()

    return run


def ours(cls: str, settings: dict[str, Any], batch: Transition) -> Callable[[], Any]:
    """One update of the package's agent."""
    agent = getattr(agents, cls)(**{**SIZES, **settings})
    return lambda: agent.update(batch)


def fast(update: Callable[[], Any]) -> Callable[[], Any]:
    """``update`` with float32 matrix products as the command line has them, for this arm alone."""

    chosen = "medium" if use_fast_float32() else "highest"
    torch.set_float32_matmul_precision("highest")

    def run() -> None:
        torch.set_float32_matmul_precision(chosen)
        update()
        torch.set_float32_matmul_precision("highest")

    return run


def bf16(update: Callable[[], Any]) -> Callable[[], Any]:
    """``update`` under the autocast of Lightning's bf16-mixed."""

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            update()

    return run


def peer_arms(batch: Transition) -> dict[str, Callable[[], Any]]:
    """Ours and the installed peers', by ``algorithm implementation``."""
    arms: dict[str, Callable[[], Any]] = {}
    for name, (cls, settings, having) in ALGORITHMS.items():
        arms[f"{name} ours"] = ours(cls, settings, batch)
        arms[f"{name} ours_fast"] = fast(ours(cls, settings, batch))
        arms[f"{name} ours_bf16"] = bf16(ours(cls, settings, batch))
        for peer in having:
            if importlib.util.find_spec(peer) is not None:
                arms[f"{name} {peer}"] = MAKERS[peer](name, batch)
    return arms


def ensemble_arms(batch: Transition) -> dict[str, Callable[[], Any]]:
    """The same agents with 2 and with 10 critics, in float32 and bf16-mixed."""
    return {
        f"{name}{suffix} {count} critics": wrap(ours(name, {**settings, "num_critics": count}, batch))
        for name, settings in ENSEMBLES.items()
        for suffix, wrap in (("", lambda update: update), ("_bf16", bf16))
        for count in (2, 10)
    }


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    batch = make_batch(args.batch)
    rows, results = [["update", "wall ms", "cpu ms", "ratio (cpu)"]], {}
    for arms, base in ((peer_arms(batch), "ours"), (ensemble_arms(batch), "2 critics")):
        taken = interleaved({name: repeated(arm, args.updates) for name, arm in arms.items()}, args.repeats)
        for name, seconds in taken.items():
            algorithm = name.split()[0]
            each = {key: value / args.updates for key, value in seconds.items()}
            each["ratio"] = seconds["cpu_s"] / taken[f"{algorithm} {base}"]["cpu_s"]
            results[name] = each
            figures = [f"{each[key] * 1e3:.2f}" for key in ("wall_s", "cpu_s")]
            rows.append([name, *figures, f"{each['ratio']:.2f}"])
    print(table(rows))
    installed = [peer for peer in MAKERS if importlib.util.find_spec(peer) is not None]
    versions = {peer: version(peer) for peer in installed}
    print(save("agents", {"settings": vars(args), "peers": versions, "seconds": results}, "torch"))


if __name__ == "__main__":
    main()
