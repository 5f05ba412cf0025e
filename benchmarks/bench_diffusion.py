"""Diffusion speed as ratios: a training update and synthetic rows per second, against a straightforward loop.

The yardstick is the published computation in float32: AdamW, clip and a separate moving average, parameter by
parameter, and 128 stochastic Heun steps of the package denoising-diffusion-pytorch (`yardsticks/elucidated.py`,
which has a plain version for where the package is missing). Both arms run the same network, which the golden
vectors prove equal to the published one. Arms are interleaved, and medians of process CPU time
reported, so that other processes disturb little. No global torch flag is set: bfloat16 comes from autocast
(training) and from weights cast once (sampling).

    python benchmarks/bench_diffusion.py --widths 1024 2048 --repeats 5
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from yardsticks import elucidated

from lightning_synther.diffusion.ema import ema_decay
from lightning_synther.diffusion.loss import edm_loss
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.diffusion.noise import training_sigma
from lightning_synther.diffusion.samplers import DiffusionSampler
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=100, action_dim=6, discount=0.99)  # latents of cheetah: 207 numbers
FEW_STEPS = DiffusionSampler("dpmpp_2m_sde", 12, sigma_min=0.1, sigma_max=20.0)  # the default on such data
PUBLISHED_STEPS, SHORT_STEPS = 128, 8  # the long one is extrapolated: its steps cost the same


def build(width: int) -> LatentDiffusion:
    """Untrained model: speed does not depend on the weights."""
    torch.manual_seed(0)
    model = LatentDiffusion(SPEC.to_dict(), width=width, num_training_steps=100_000)
    model.fit_normalizer(torch.randn(1000, SPEC.dim))
    return model


def plain_update(width: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The published update: default AdamW, clip, scheduler, and a moving average every tenth update."""
    model = build(width)
    denoiser, average = model.denoiser, copy.deepcopy(model.denoiser)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=3e-4, betas=(0.9, 0.99), foreach=False)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100_000)
    step = 0

    def update(rows: torch.Tensor) -> torch.Tensor:
        nonlocal step
        x, sigma = model.normalizer(rows), training_sigma(torch.randn(len(rows)))
        loss = edm_loss(denoiser, x, sigma, torch.randn_like(x), 1.0).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0, foreach=False)
        optimizer.step()
        optimizer.zero_grad()
        decay = ema_decay(step)
        if decay is not None:
            with torch.no_grad():
                for old, new in zip(average.parameters(), denoiser.parameters(), strict=True):
                    old.lerp_(new, 1 - decay)
        scheduler.step()
        step += 1
        return loss.detach()

    return update


def our_update(width: int, bf16: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """`LatentDiffusion.update` without a Trainer, in the autocast that Lightning's bf16-mixed gives."""
    model = build(width)
    configured = model.configure_optimizers()
    model.optimizers = lambda: configured["optimizer"]
    model.lr_schedulers = lambda: configured["lr_scheduler"]
    model.manual_backward = lambda loss: loss.backward()

    def update(rows: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model.update(rows)["loss"]

    return update


def interleave(arms: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median process CPU seconds of every arm, after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(repeats + 1):
        for name, arm in arms.items():
            start = time.process_time()
            arm()
            if repeat:
                times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def training(width: int, repeats: int, batch_size: int = 256, updates: int = 10) -> dict[str, object]:
    """Seconds of one update, over blocks of ten so that the moving average is in every block."""
    steps = {
        "plain_float32": plain_update(width),
        "ours_float32": our_update(width, bf16=False),
        "ours_bf16": our_update(width, bf16=True),
    }
    batches = torch.randn(updates, batch_size, SPEC.dim)
    losses: dict[str, list[float]] = {name: [] for name in steps}

    def block(name: str) -> None:
        torch.manual_seed(len(losses[name]))
        losses[name].append(torch.stack([steps[name](rows) for rows in batches]).mean().item())

    seconds = interleave({name: lambda name=name: block(name) for name in steps}, repeats)
    return {
        "seconds_per_update": {name: value / updates for name, value in seconds.items()},
        "speedup": {name: seconds["plain_float32"] / seconds[name] for name in steps},
        "mean_loss_of_last_block": {name: values[-1] for name, values in losses.items()},
    }


def sampling(width: int, repeats: int, batch_size: int = 1024) -> dict[str, object]:
    """Rows per second of the published sampler and of ours, by whole samplers."""
    model = build(width)
    network = model.ema.model.network
    yardstick = elucidated.published(network, SPEC.dim) or elucidated.plain(network, SPEC.dim)

    def draw(sampler: DiffusionSampler, dtype: str) -> None:
        model.hparams["sampling_dtype"] = dtype
        model.sample(batch_size, seed=0, sampler=sampler)

    seconds = interleave(
        {
            "published_short_float32": lambda: yardstick(batch_size, SHORT_STEPS),
            "few_steps_float32": lambda: draw(FEW_STEPS, "float32"),
            "few_steps_bf16": lambda: draw(FEW_STEPS, "bfloat16"),
        },
        repeats,
    )
    evaluations = 2 * PUBLISHED_STEPS - 1
    scale = evaluations / (2 * SHORT_STEPS - 1)
    published = batch_size / (seconds["published_short_float32"] * scale)
    rates = {name: batch_size / seconds[f"few_steps_{name}"] for name in ("float32", "bf16")}
    return {
        "yardstick": "plain" if elucidated.package() is None else "denoising-diffusion-pytorch",
        "evaluations": {"published": evaluations, "few_steps": FEW_STEPS.num_evaluations},
        "rows_per_second": {
            "published_float32": published,
            **{f"few_steps_{k}": v for k, v in rates.items()},
        },
        "speedup_over_published": {f"few_steps_{k}": v / published for k, v in rates.items()},
    }


def main() -> None:
    """Run and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sampling_only", action="store_true")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "diffusion.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report = {
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "amx": "amx_bf16" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else None,
        "threads": args.threads,
        "load_average": os.getloadavg()[0],
        "training": {str(w): training(w, args.repeats) for w in args.widths if not args.sampling_only},
        "sampling": {str(w): sampling(w, args.repeats) for w in args.widths},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
