"""What looking costs: trainings with everything that goes to TensorBoard, and with nothing of it.

Both arms are the Trainer that `fit` uses. One has its logger, `LogTime`, metrics every 50 updates and, for a diffusion
model, `FidelityMonitor`; the other has none of them. Arms run in turn; CPU seconds, as the machine may be busy. What is
looked for is smaller than the scatter of a training, so the difference is taken turn by turn, and its median is given
with the quartiles.

    python benchmarks/bench_logging.py --repeats 7

The monitor's first look is not free, however short the training: its seconds are reported by themselves, and the
diffusion arms are as long as those of `configs/scale/quick.yaml`, unless ``--updates`` says otherwise.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from report import in_turn, save, table

from lightning_synther import BC, TD3BC, LatentDiffusion, ReplayData, RowData, TransitionSpec, TransitionStore
from lightning_synther.allocator import keep_freed_memory
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.stages.config.sections import StageTraining
from lightning_synther.stages.record.stage import Stage
from lightning_synther.stages.trainer.clock import LogTime
from lightning_synther.stages.trainer.training import TrainerFactory
from lightning_synther.synthesis.monitor import FidelityMonitor

SPEC = TransitionSpec(observation_dim=100, action_dim=6, discount=0.97)
NEVER = 10**9
#: A diffusion model of `configs/scale/quick.yaml`.
QUICK = {
    "width": 512,
    "num_layers": 4,
    "sampler": "dpmpp_2m_sde",
    "num_sampling_steps": 20,
    "sigma_min": 0.1,
    "sigma_max": 20.0,
    "rho": 12.0,
}


class Account:
    """CPU seconds within the calls that only looking makes: a share without the noise of two trainings' difference."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0

    def watch(self, owner: Any, *names: str) -> None:
        """Count what methods of ``owner`` take from now on; one within another counts once."""
        for name in names:
            setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            begin, self._depth = time.process_time(), self._depth + 1
            try:
                return method(*args, **kwargs)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.process_time() - begin

        return call


def write_store(path: Path, count: int, seed: int) -> str:
    """Correlated rows, as latents are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).standard_normal((12, SPEC.dim)) / 3
    noise = 0.3 * rng.standard_normal((count, SPEC.dim))
    rows = np.tanh(rng.standard_normal((count, 12)) @ mixing + noise).astype(np.float32)
    with StoreWriter(
        path, SPEC, count, seed=0, producer="benchmark", fingerprint=path.name, chunk_size=count
    ) as writer:
        writer.write(0, rows)
        writer.commit()
    return str(path)


def arms(
    folder: Path,
    make: Callable[[int], pl.LightningModule],
    data: pl.LightningDataModule,
    training: StageTraining,
    account: Account,
    monitor: FidelityMonitor | None = None,
) -> dict[str, Callable[[], None]]:
    """The same training twice: ``make`` gets the updates between two records of metrics."""
    factory = TrainerFactory(folder, 0, {"accelerator": "cpu", "devices": 1}, progress=False)

    def run(shown: bool) -> None:
        trainer = factory.trainer(Stage(folder, "stage", {}), training)
        if not shown:
            trainer.loggers = []
            trainer.callbacks = [part for part in trainer.callbacks if not isinstance(part, LogTime)]
        else:
            trainer.callbacks += [] if monitor is None else [monitor]
            account.watch(trainer.loggers[0], "log_metrics", "save")
            account.watch(trainer._logger_connector, "log_metrics")
            for clock in (part for part in trainer.callbacks if isinstance(part, LogTime)):
                account.watch(clock, "on_train_batch_end", "on_train_end")
        trainer.fit(make(50 if shown else NEVER), datamodule=data)

    return {"without": lambda: run(False), "with": lambda: run(True)}


def spent(trainings: dict[str, Callable[[], None]], repeats: int) -> dict[str, Any]:
    """CPU seconds without and with looking, by turn."""
    turns = in_turn(trainings, repeats)
    return {f"{name}_cpu_s": [call["cpu_s"] for call in calls] for name, calls in turns.items()}


def diffusion(folder: Path, updates: int, repeats: int) -> dict[str, Any]:
    """The diffusion model, validated on held-out rows in both arms."""
    real, heldout = write_store(folder / "real", 20_000, 1), write_store(folder / "heldout", 500, 2)
    monitor, account, looks = (
        FidelityMonitor(TransitionStore.open(real), TransitionStore.open(heldout)),
        Account(),
        Account(),
    )
    looks.watch(monitor, "_look")
    account.watch(monitor, "on_validation_end")
    data = RowData(real, heldout=heldout, updates_per_step=10)
    training = StageTraining(max_steps=updates, updates_per_step=10, validate_every=updates // 4)

    def make(every: int) -> pl.LightningModule:
        torch.manual_seed(0)
        model = LatentDiffusion(spec=SPEC.to_dict(), log_every_n_updates=every, **QUICK)
        model.fit_normalizer(TransitionStore.open(real).rows)
        return model

    seconds = spent(arms(folder, make, data, training, account, monitor), repeats)
    per_training = {"accounted_cpu_s": account.seconds, "looks_cpu_s": looks.seconds}
    return {**seconds, **{name: value / (repeats + 1) for name, value in per_training.items()}}


def agent(folder: Path, cls: Any, updates: int, repeats: int) -> dict[str, Any]:
    """An agent's heads on latents, real and synthetic batches in turn."""
    paths = [write_store(folder / name, 20_000, seed) for seed, name in enumerate(("real", "synthetic"))]
    data = ReplayData(*paths, updates_per_step=10)
    training = StageTraining(max_steps=updates, updates_per_step=10)

    def make(every: int) -> pl.LightningModule:
        torch.manual_seed(0)
        sizes = {"observation_dim": SPEC.observation_dim, "action_dim": SPEC.action_dim, "hidden_dim": 256}
        return cls(observation="states", log_every_n_updates=every, **sizes)

    account = Account()
    seconds = spent(arms(folder, make, data, training, account), repeats)
    return {**seconds, "accounted_cpu_s": account.seconds / (repeats + 1)}


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--updates", type=int, default=4_000, help="of the diffusion model")
    parser.add_argument("--agent_updates", type=int, default=2_000)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    results = {}
    with tempfile.TemporaryDirectory() as name:
        for case, cls in (("BC on latents", BC), ("TD3+BC on latents", TD3BC)):
            folder = Path(name) / cls.__name__
            folder.mkdir()
            results[case] = agent(folder, cls, args.agent_updates, args.repeats)
        results["diffusion, monitored"] = diffusion(Path(name), args.updates, args.repeats)
    rows = [["training", "without, CPU s", "difference", "quartiles", "in calls that only look"]]
    for case, figures in results.items():
        bare, shown = (np.array(figures[f"{arm}_cpu_s"]) for arm in ("without", "with"))
        low, middle, high = np.quantile(shown / bare - 1, [0.25, 0.5, 0.75])
        share = figures["accounted_cpu_s"] / np.median(bare)
        figures |= {"difference": [low, middle, high], "share": share}
        shares = [f"{middle:.1%}", f"{low:.1%} to {high:.1%}", f"{share:.1%}"]
        rows.append([case, f"{np.median(bare):.1f}", *shares])
    print(table(rows))
    looks = results["diffusion, monitored"]["looks_cpu_s"]
    print(f"{looks:.2f} CPU s of the diffusion training are looks of the monitor")
    print(save("logging", {"settings": vars(args), "cases": results}, "torch", "lightning", "tensorboard"))


if __name__ == "__main__":
    main()
