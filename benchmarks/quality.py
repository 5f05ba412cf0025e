"""Quality over network evaluations: samplers x noise levels x (EDM, flow matching), over several training seeds.

Errors against held-out rows, each beside the one that real training rows have (the floor): sliced Wasserstein
distance, mean marginal Kolmogorov-Smirnov statistic, error of correlations, and two of functional dependence, of
reward and next observation on observation and action, in standard deviations. *Dependence* asks how far rows
scatter around the relation: the RMSE of a perceptron that learned it from the training rows, minus that on
held-out rows, without its sign (a sampler that leaves out the data's own noise is as wrong as one that adds
some; the JSON has the sign as ``scatter``). *Transfer* asks whether the relation itself is right: the RMSE on
held-out rows of a regression that learned from synthetic ones.

Every sampler, flow matching included, is compared with what SynthER publishes: 128-step stochastic Heun of an EDM
network of the same seed. `quality_judge.py` says when a difference counts.

    python benchmarks/quality.py --train STORE --heldout STORE --seeds 0 1 2 --folder runs/quality_states

Models and scores are kept in ``--folder`` as soon as they are there; the same command goes on with what is missing.
``--checkpoint`` judges EDM models that were trained elsewhere, one for each seed.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from learning_report import write_json
from quality_judge import COMPARED, ERRORS, Judge, mean_over_seeds, verdict
from report import save

from lightning_synther.data.datamodules import RowData
from lightning_synther.data.store import TransitionStore
from lightning_synther.diffusion.levels import data_levels
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.diffusion.samplers import DiffusionSampler
from lightning_synther.progress import Progress
from lightning_synther.stages.trainer.checkpoints import save_module

REFERENCE = "stochastic_heun 128, 0.002-80"
Samplers = dict[str, DiffusionSampler]


def samplers(sigma_min: float, sigma_max: float, brief: bool) -> Samplers:
    """What is compared, by name; ``auto`` levels are those of the data."""
    auto = (sigma_min, sigma_max)
    chosen = {REFERENCE: DiffusionSampler("stochastic_heun", 128)}
    chosen |= {
        f"dpmpp_2m_sde {n}, auto": DiffusionSampler("dpmpp_2m_sde", n, *auto) for n in (8, 10, 12, 15, 20)
    }
    chosen["dpmpp_2m_sde 20, 0.002-80"] = DiffusionSampler("dpmpp_2m_sde", 20)
    if brief:
        return chosen
    for steps in (32, 64):
        chosen[f"stochastic_heun {steps}, 0.002-80"] = DiffusionSampler("stochastic_heun", steps)
    chosen["stochastic_heun 128, auto"] = DiffusionSampler("stochastic_heun", 128, *auto)
    chosen["heun 18, 0.002-80"] = DiffusionSampler("heun", 18)
    chosen["heun 10, auto"] = DiffusionSampler("heun", 10, *auto)
    chosen["euler 20, auto"] = DiffusionSampler("euler", 20, *auto)
    chosen["euler 20, auto, straight"] = DiffusionSampler("euler", 20, *auto, schedule="straight")
    chosen["dpmpp_2m 20, 0.002-80"] = DiffusionSampler("dpmpp_2m", 20)
    chosen["dpmpp_2m 20, auto"] = DiffusionSampler("dpmpp_2m", 20, *auto)
    for low in (0.02, 0.05, 0.1, 0.2):
        chosen[f"dpmpp_2m_sde 20, {low}-80"] = DiffusionSampler("dpmpp_2m_sde", 20, low, 80.0)
    for steps in (8, 12):
        chosen[f"dpmpp_2m_sde {steps}, 0.1-20, rho 12"] = DiffusionSampler(
            "dpmpp_2m_sde", steps, 0.1, 20.0, 12.0
        )
    chosen["dpmpp_2m_sde 15, auto, log"] = DiffusionSampler("dpmpp_2m_sde", 15, *auto, schedule="log")
    chosen["dpmpp_2m_sde 40, auto"] = DiffusionSampler("dpmpp_2m_sde", 40, *auto)
    return chosen


def train(store: str, target: Any, seed: int, width: int, updates: int) -> LatentDiffusion:
    """A model of one kind; flow matching draws its noise as Esser et al. 2024 (arXiv 2403.03206) do."""
    torch.manual_seed(seed)
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
    trainer.fit(model, RowData(store, updates_per_step=100, seed=seed))
    return model


def networks(args: argparse.Namespace) -> dict[str, Path]:
    """Checkpoints by kind and seed, as in ``edm/0``; those that are missing are trained when their turn comes."""
    if args.checkpoint:
        return {f"edm/{seed}": Path(path) for seed, path in enumerate(args.checkpoint)}
    kinds = ("edm", "flow")
    return {f"{kind}/{seed}": args.folder / f"{kind}_{seed}.ckpt" for seed in args.seeds for kind in kinds}


def loaded(key: str, path: Path, args: argparse.Namespace) -> LatentDiffusion:
    """The model of ``path``, trained first where there is none."""
    if not path.exists():
        kind, seed = key.split("/")
        save_module(train(args.train, kind, int(seed), args.width, args.updates), path)
    model = LatentDiffusion.load_from_checkpoint(path, map_location="cpu").eval()
    model.hparams["sampling_dtype"] = args.dtype
    return model


def sweep(judge: Judge, record: dict[str, Any], path: Path, args: argparse.Namespace) -> None:
    """Judge what ``record`` lacks, and write it after every network."""
    record.setdefault("floor", judge.scores(judge.floor_rows).tolist())
    wanted = {key: file for key, file in networks(args).items() if key not in record["networks"]}
    with Progress("quality", len(wanted), "networks") as progress:
        for key, file in wanted.items():
            model = loaded(key, file, args)
            with torch.no_grad():
                levels = data_levels(model.normalizer(judge.train_rows))
            rows = {}
            for name, sampler in samplers(levels.sigma_min, levels.sigma_max, args.brief).items():
                start = time.process_time()
                made = model.sample(args.num_rows, seed=0, sampler=sampler)
                spent = time.process_time() - start
                scores = judge.scores(made).round(5).tolist()
                rows[name] = {
                    "evaluations": sampler.num_evaluations,
                    "cpu_s": round(spent, 2),
                    "scores": scores,
                }
            record["networks"][key] = {"levels": levels._asdict(), "samplers": rows}
            write_json(path, record)
            progress.update()


def summarise(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Means over seeds and verdicts, by kind of network and sampler."""
    seeds: dict[str, list[dict[str, Any]]] = {}
    for key, network in record["networks"].items():
        seeds.setdefault(key.split("/")[0], []).append(network["samplers"])
    reference = np.array([run[REFERENCE]["scores"] for run in seeds["edm"]])
    result = {}
    for kind, runs in seeds.items():
        for name in runs[0]:
            scores = np.array([run[name]["scores"] for run in runs])
            found = verdict(scores, reference[: len(scores)])
            result[f"{kind}: {name}"] = {
                "evaluations": runs[0][name]["evaluations"],
                "cpu_s": float(np.mean([run[name]["cpu_s"] for run in runs])),
                "errors": dict(zip(ERRORS, mean_over_seeds(scores), strict=True)),
                **found._asdict(),
            }
    return result


def page(floor: np.ndarray, rows: dict[str, dict[str, Any]]) -> str:
    """The table as Markdown."""
    head = ["network: sampler", "evaluations", *ERRORS[:COMPARED], "worse on", "unsettled on"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    real = {"evaluations": "-", "errors": dict(zip(ERRORS, mean_over_seeds(floor[None]), strict=True))}
    ordered = sorted(rows.items(), key=lambda item: (item[0].split(":")[0], -item[1]["evaluations"]))
    for name, row in [("training rows (floor)", real), *ordered]:
        cells = [f"{value:.3f} +- {half:.3f}" for value, half in list(row["errors"].values())[:COMPARED]]
        cells += [", ".join(row.get(column, [])) or "-" for column in ("worse", "unsettled")]
        lines.append(f"| {name} | {row['evaluations']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, write ``results/<name>.json``, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", required=True, help="store that the models are trained on")
    parser.add_argument("--heldout", required=True, help="store that they are compared with")
    parser.add_argument("--folder", type=Path, required=True, help="where models and scores are kept")
    parser.add_argument("--checkpoint", nargs="+", default=[], help="trained models, one for each seed")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the trainings")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--num_rows", type=int, default=5_000)
    parser.add_argument("--resamples", type=int, default=10)
    parser.add_argument("--brief", action="store_true", help="a handful of samplers only")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16", help="of sampling")
    parser.add_argument("--name", default="quality")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    args.folder.mkdir(parents=True, exist_ok=True)
    stores = TransitionStore.open(args.train), TransitionStore.open(args.heldout)
    judge = Judge(*stores, args.num_rows, args.resamples)
    settings = {
        name: getattr(args, name) for name in ("width", "updates", "num_rows", "resamples", "brief", "dtype")
    }
    path = args.folder / "scores.json"
    record = json.loads(path.read_text()) if path.exists() else {"settings": settings, "networks": {}}
    if record["settings"] != settings:
        parser.error(f"{path} holds scores of {record['settings']}: give another --folder")
    sweep(judge, record, path, args)
    rows = summarise(record)
    sizes = {"train": len(stores[0]), "heldout": len(stores[1]), "row": stores[0].spec.dim}
    levels = {key: network["levels"] for key, network in record["networks"].items()}
    report = {"settings": settings, "rows": sizes, "levels": levels, "samplers": rows}
    print(f"{page(np.array(record['floor']), rows)}\n\n{save(args.name, report, 'torch', 'numpy')}")


if __name__ == "__main__":
    main()
