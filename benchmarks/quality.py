"""Quality over network evaluations: samplers x noise levels x (EDM, flow matching) on one store of transitions.

Errors against held-out rows, each beside the one that real training rows have (the floor): sliced Wasserstein
distance, mean marginal Kolmogorov-Smirnov statistic, error of correlations, and two of functional dependence, of
reward and next observation on observation and action, in standard deviations. *Dependence* asks how far rows
scatter around the relation: the RMSE of a perceptron that learned it from the training rows, minus that on
held-out rows, without its sign (a sampler that leaves out the data's own noise is as wrong as one that adds
some; the JSON has the sign as ``scatter``). *Transfer* asks whether the relation itself is right: the RMSE on
held-out rows of a regression that learned from synthetic ones.

Intervals: 1.96 standard deviations over bootstrap resamples of held-out and synthetic rows. A sampler is "worse"
than 128-step stochastic Heun of the same network on an error where the difference, under the same resamples,
exceeds zero by 1.96 standard deviations.

    python benchmarks/quality.py --train STORE --heldout STORE [--checkpoint edm.ckpt flow.ckpt]

Without checkpoints it trains one model of each kind first (`--width`, `--updates`).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from report import save
from torch import Tensor

from lightning_synther.data.datamodules import RowData
from lightning_synther.data.store import TransitionStore
from lightning_synther.diffusion.levels import data_levels
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.diffusion.samplers import DiffusionSampler
from lightning_synther.networks.heads import MLP
from lightning_synther.synthesis.dynamics import Dynamics
from lightning_synther.synthesis.joint import correlation_error, sliced_wasserstein
from lightning_synther.synthesis.marginals import ks_statistic
from lightning_synther.transition import TransitionSpec

ERRORS = ("sliced_wasserstein", "ks", "correlation", "dependence", "transfer", "scatter")
COMPARED = len(ERRORS) - 1
REFERENCE = "stochastic_heun 128, 0.002-80"
Samplers = dict[str, DiffusionSampler]


def samplers(sigma_min: float, sigma_max: float, brief: bool) -> Samplers:
    """What is compared, by name; ``auto`` levels are those of the data."""
    auto = (sigma_min, sigma_max)
    chosen = {REFERENCE: DiffusionSampler("stochastic_heun", 128)}
    chosen |= {f"dpmpp_2m_sde {n}, auto": DiffusionSampler("dpmpp_2m_sde", n, *auto) for n in (10, 15, 20)}
    chosen["dpmpp_2m_sde 20, 0.002-80"] = DiffusionSampler("dpmpp_2m_sde", 20)
    if brief:
        return chosen
    chosen["stochastic_heun 32, 0.002-80"] = DiffusionSampler("stochastic_heun", 32)
    chosen["heun 18, 0.002-80"] = DiffusionSampler("heun", 18)
    chosen["heun 10, auto"] = DiffusionSampler("heun", 10, *auto)
    chosen["euler 20, auto"] = DiffusionSampler("euler", 20, *auto)
    chosen["euler 20, auto, straight"] = DiffusionSampler("euler", 20, *auto, schedule="straight")
    chosen["dpmpp_2m 20, 0.002-80"] = DiffusionSampler("dpmpp_2m", 20)
    chosen["dpmpp_2m 20, auto"] = DiffusionSampler("dpmpp_2m", 20, *auto)
    for low in (0.02, 0.05, 0.1, 0.2):
        chosen[f"dpmpp_2m_sde 20, {low}-80"] = DiffusionSampler("dpmpp_2m_sde", 20, low, 80.0)
    chosen["dpmpp_2m_sde 12, 0.1-20, rho 12"] = DiffusionSampler("dpmpp_2m_sde", 12, 0.1, 20.0, 12.0)
    chosen["dpmpp_2m_sde 15, auto, log"] = DiffusionSampler("dpmpp_2m_sde", 15, *auto, schedule="log")
    chosen["dpmpp_2m_sde 40, auto"] = DiffusionSampler("dpmpp_2m_sde", 40, *auto)
    return chosen


class Predictor:
    """Reward and next observation from observation and action, learned from standardised rows (N, D)."""

    def __init__(self, rows: Tensor, spec: TransitionSpec, updates: int = 3000) -> None:
        torch.manual_seed(0)
        self.inputs = spec.fields["action"].stop
        self.targets = slice(self.inputs, spec.fields["next_observation"].stop)
        self.net = MLP(self.inputs, self.targets.stop - self.targets.start, 256, 2)
        optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3, fused=True)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
        for _ in range(updates):
            batch = rows[torch.randint(len(rows), (256,))]
            loss = (self.net(batch[:, : self.inputs]) - batch[:, self.targets]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()

    @torch.no_grad()
    def squared_errors(self, rows: Tensor) -> Tensor:
        """Mean squared error (N,) of each row."""
        return (self.net(rows[:, : self.inputs]) - rows[:, self.targets]).square().mean(dim=1)


class Judge:
    """The errors of rows against held-out ones, and of bootstrap resamples of both."""

    def __init__(
        self, train: TransitionStore, heldout: TransitionStore, num_rows: int, resamples: int
    ) -> None:
        rows = train.mapped.clone()
        std = rows.std(0)
        self.mean, self.std = rows.mean(0), torch.where(std > 1e-6, std, torch.ones_like(std))
        rng = np.random.default_rng(0)
        count = min(num_rows, len(heldout))
        self.heldout = self._standardise(heldout.mapped[rng.choice(len(heldout), count, replace=False)])
        self.floor_rows = rows[rng.choice(len(rows), min(num_rows, len(rows)), replace=False)]
        self.train_rows, self.spec = rows, train.spec
        self.predictor = Predictor(self._standardise(rows), train.spec)
        self.resamples = resamples

    def _standardise(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / self.std

    def scores(self, rows: Tensor) -> np.ndarray:
        """Errors (1 + resamples, 6) of ``rows`` in data units; the first is that of all rows."""
        rows = self._standardise(rows)
        squared, real_squared = (self.predictor.squared_errors(part) for part in (rows, self.heldout))
        result = [self._errors(rows, self.heldout, squared, real_squared)]
        for k in range(self.resamples):
            rng = np.random.default_rng(k)
            real, fake = (
                rng.integers(len(self.heldout), size=len(self.heldout)),
                rng.integers(len(rows), size=len(rows)),
            )
            parts = rows[fake], self.heldout[real], squared[fake], real_squared[real]
            result.append(self._errors(*parts))
        return np.array(result)

    def _errors(self, rows: Tensor, heldout: Tensor, squared: Tensor, real_squared: Tensor) -> list[float]:
        scatter = (squared.mean().sqrt() - real_squared.mean().sqrt()).item()
        return [
            sliced_wasserstein(rows, heldout),
            ks_statistic(rows, heldout).mean().item(),
            correlation_error(rows, heldout),
            abs(scatter),
            Dynamics(rows, self.spec).error(heldout),
            scatter,
        ]


def describe(scores: np.ndarray) -> dict[str, list[float]]:
    """Value and half-width of its interval, by error."""
    half = 1.96 * scores[1:].std(axis=0)
    return {name: [float(v), float(h)] for name, v, h in zip(ERRORS, scores[0], half, strict=True)}


def worse(scores: np.ndarray, reference: np.ndarray) -> list[str]:
    """Errors on which ``scores`` are worse than ``reference``, under the same resamples."""
    difference = scores - reference
    lower = difference[0] - 1.96 * difference[1:].std(axis=0)
    return [name for name, bound in zip(ERRORS[:COMPARED], lower[:COMPARED], strict=True) if bound > 0]


def train(store: str, target: Any, width: int, updates: int) -> LatentDiffusion:
    """A model of one kind; flow matching draws its noise as Esser et al. 2024 (arXiv 2403.03206) do."""
    torch.manual_seed(0)
    spec = TransitionStore.open(store).spec
    noise = {"P_mean": 0.0, "P_std": 1.0} if target == "flow" else {}
    model = LatentDiffusion(
        spec.to_dict(),
        width=width,
        num_layers=4,
        target=target,
        sigma_min="auto",
        sigma_max="auto",
        lr=1e-3,
        **noise,
    )
    trainer = pl.Trainer(
        max_steps=updates,
        accelerator="cpu",
        precision="bf16-mixed",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, RowData(store, updates_per_step=100))
    return model


def compare(model: LatentDiffusion, judge: Judge, args: argparse.Namespace) -> dict[str, Any]:
    """Rows of the table for one network."""
    with torch.no_grad():
        found = data_levels(model.normalizer(judge.train_rows))
    levels = [found.sigma_min, found.sigma_max]
    model.hparams["sampling_dtype"] = args.dtype
    results: dict[str, Any] = {"data_levels": found._asdict(), "samplers": {}}
    reference: list[np.ndarray] = []
    for name, sampler in samplers(*levels, args.brief).items():
        start = time.process_time()
        parts = [model.sample(args.num_rows, seed=seed, sampler=sampler) for seed in range(args.seeds)]
        seconds = (time.process_time() - start) / args.seeds
        scores = np.mean([judge.scores(rows) for rows in parts], axis=0)
        reference = reference if len(reference) else [scores]
        results["samplers"][name] = {
            "evaluations": sampler.num_evaluations,
            "cpu_seconds": round(seconds, 2),
            "errors": describe(scores),
            "worse_on": worse(scores, reference[0]),
        }
        print(name, results["samplers"][name], flush=True)
    return results


def page(report: dict[str, Any]) -> str:
    """The table as Markdown."""
    head = ["network", "sampler", "evaluations", *ERRORS[:COMPARED], "worse on"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    rows = [
        ("real", "training rows (floor)", {"evaluations": "-", "errors": report["floor"], "worse_on": []})
    ]
    for network, result in report["networks"].items():
        ordered = sorted(result["samplers"].items(), key=lambda item: -item[1]["evaluations"])
        rows += [(network, name, row) for name, row in ordered]
    for network, name, row in rows:
        cells = [f"{value:.4f} +- {half:.4f}" for value, half in list(row["errors"].values())[:COMPARED]]
        lines.append(
            f"| {network} | {name} | {row['evaluations']} | {' | '.join(cells)} | {', '.join(row['worse_on'])} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run, write ``results/<name>.json``, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", required=True, help="store that the models are trained on")
    parser.add_argument("--heldout", required=True, help="store that they are compared with")
    parser.add_argument(
        "--checkpoint", nargs="+", default=[], help="trained models, instead of training some"
    )
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--num_rows", type=int, default=5_000)
    parser.add_argument("--resamples", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--brief", action="store_true", help="a handful of samplers only")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of sampling")
    parser.add_argument("--name", default="quality")
    parser.add_argument("--keep", type=Path, default=None, help="folder to keep the trained models in")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    judge = Judge(
        TransitionStore.open(args.train), TransitionStore.open(args.heldout), args.num_rows, args.resamples
    )
    report: dict[str, Any] = {
        "settings": {
            k: str(v) for k, v in vars(args).items() if k not in ("train", "heldout", "checkpoint", "keep")
        }
    }
    report["floor"] = describe(judge.scores(judge.floor_rows))
    print("floor", report["floor"], flush=True)
    report["networks"] = {}
    for path in args.checkpoint:
        model = LatentDiffusion.load_from_checkpoint(path, map_location="cpu")
        report["networks"][Path(path).stem] = compare(model, judge, args)
    for target in () if args.checkpoint else ("edm", "flow"):
        model = train(args.train, target, args.width, args.updates)
        if args.keep is not None:
            args.keep.mkdir(parents=True, exist_ok=True)
            torch.save(model.state_dict(), args.keep / f"{target}.pt")
        report["networks"][target] = compare(model, judge, args)
        save(args.name, report, "torch", "numpy")
    print(f"{page(report)}\n\n{save(args.name, report, 'torch', 'numpy')}")


if __name__ == "__main__":
    main()
