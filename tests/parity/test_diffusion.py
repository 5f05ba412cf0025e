"""Diffusion against the arrays that SynthER's published code computed (golden section B)."""

from __future__ import annotations

import re

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from lightning_synther.diffusion.ema import average, ema_decay
from lightning_synther.diffusion.likelihood import log_likelihood
from lightning_synther.diffusion.loss import edm_loss
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.diffusion.noise import edm_schedule, training_sigma
from lightning_synther.diffusion.normalizer import MinMaxNormalizer, Normalizer, StandardNormalizer
from lightning_synther.diffusion.optimization import lr_factor
from lightning_synther.diffusion.preconditioning import Preconditioned, coefficients, loss_weight
from lightning_synther.diffusion.samplers import Churn, DiffusionSampler
from lightning_synther.diffusion.sampling import clamped, sample_block
from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.networks.denoiser import ResidualMLP
from lightning_synther.transition import TransitionSpec

VALUES = {"rtol": 1e-5, "atol": 1e-5}
GRADIENTS = {"rtol": 1e-3, "atol": 1e-5}
DENOISERS = ["ln0", "ln1", "cond", "cond_ln1_wide", "learned", "sinusoidal", "gelu"]
LOSSES = [
    "standard",
    "standard_skip_reward",
    "standard_noterm",
    "standard_skip_both",
    "minmax",
    "minmax_skip_ignored",
    "cond",
    "sigma_data_half",
]
SAMPLES = [
    "det_n8_standard",
    "det_n8_standard_cond",
    "det_n8_minmax_clamp",
    "det_n32_standard",
    "det_n32_minmax_clamp",
    "sto_n8_standard",
    "sto_n32_minmax_clamp",
    "sto_n128_standard",
]


def our_key(key: str, num_layers: int) -> str:
    """Name of a published parameter in `ResidualMLP`."""
    fixed = {
        "time_mlp.0.weights": "time_features.frequencies",
        "residual_mlp.network.0": "stem",
        f"residual_mlp.network.{num_layers + 1}": "norm",
        "residual_mlp.final_linear": "head",
    }
    for theirs, ours in fixed.items():
        if key == theirs or key.startswith(f"{theirs}."):
            return ours + key[len(theirs) :]
    if match := re.fullmatch(r"residual_mlp\.network\.(\d+)\.(linear|ln)\.(weight|bias)", key):
        layer, part, name = match.groups()
        return f"blocks.{int(layer) - 1}.{ {'ln': 'norm'}.get(part, part) }.{name}"
    if match := re.fullmatch(r"time_mlp\.(\d)\.(.*)", key):
        return f"time_mlp.{int(match[1]) - 1}.{match[2]}"
    return key


def our_state(golden_file, prefix, num_layers):
    return {our_key(key, num_layers): value for key, value in golden_file.state(prefix).items()}


def network(golden_file, hp) -> ResidualMLP:
    features = "sinusoidal"
    if hp["random_fourier_features"]:
        features = "random"
    elif hp["learned_sinusoidal_cond"]:
        features = "learned"
    net = ResidualMLP(
        hp["d_in"],
        hp["mlp_width"],
        hp["num_layers"],
        time_dim=hp["dim_t"],
        fourier_dim=hp["learned_sinusoidal_dim"],
        time_features=features,
        activation=hp["activation"],
        layer_norm=hp["layer_norm"],
        cond_dim=hp["cond_dim"] or 0,
    )
    net.load_state_dict(our_state(golden_file, "init.net.", hp["num_layers"]))
    return net


def fitted_normalizer(golden_file, hp) -> Normalizer:
    skip = set(hp.get("skip_dims", []))
    if hp.get("disable_terminal_norm"):
        skip.add(hp["event_dim"] - 1)
    if hp["normalizer_type"] == "minmax":  # the published code ignores what is to be skipped
        normalizer: Normalizer = MinMaxNormalizer(hp["event_dim"])
    else:
        normalizer = StandardNormalizer(hp["event_dim"], sorted(skip))
    normalizer.fit(ColumnStatistics.of(golden_file["in.data"]))
    return normalizer


def condition(golden_file):
    return golden_file.tensor("in.cond") if "in.cond" in golden_file else None


def test_edm_coefficients_and_schedules(golden):
    file = golden("b1_edm_coefficients")
    sigma = file.tensor("in.sigma")
    for i, p in enumerate(file.hp["param_sets"]):
        ours = coefficients(sigma, p["sigma_data"])
        for name in ("c_skip", "c_out", "c_in", "c_noise"):
            torch.testing.assert_close(getattr(ours, name), file.tensor(f"out.p{i}.{name}"), **VALUES)
        weight = loss_weight(sigma, p["sigma_data"])
        torch.testing.assert_close(weight, file.tensor(f"out.p{i}.loss_weight"), **VALUES)
        churn = Churn(p["S_churn"], p["S_tmin"], p["S_tmax"], p["S_noise"])
        for n in (8, 32, 128):
            sigmas = edm_schedule(n, p["sigma_min"], p["sigma_max"], p["rho"])
            np.testing.assert_allclose(sigmas, file[f"out.p{i}.schedule_{n}"], rtol=1e-4)
            gammas = [churn.gamma(sigma, n) for sigma in sigmas]
            np.testing.assert_allclose(gammas, file[f"out.p{i}.gamma_{n}"], rtol=1e-6)


@pytest.mark.parametrize("case", DENOISERS)
def test_denoising_network(golden, case):
    file = golden(f"b2_denoiser_{case}")
    net = network(file, file.hp)
    t = file.tensor("in.timesteps")
    torch.testing.assert_close(net.embed_time(t), file.tensor("out.time_embed"), **VALUES)
    y = net(file.tensor("in.x"), t, condition(file))
    torch.testing.assert_close(y, file.tensor("out.y"), **VALUES)
    trainable = {our_key(key, file.hp["num_layers"]) for key in file.hp["trainable"]}
    assert {name for name, _ in net.named_parameters()} == trainable


@pytest.mark.parametrize("case", LOSSES)
def test_training_loss_and_gradient(golden, case):
    file = golden(f"b3_loss_{case}")
    hp, net = file.hp, network(file, file.hp["net"])
    normalizer = fitted_normalizer(file, hp)
    for name, value in file.state("out.norm.").items():
        torch.testing.assert_close(getattr(normalizer, name), value, **VALUES)
    x = normalizer(file.tensor("in.batch"))
    torch.testing.assert_close(x, file.tensor("out.normalized"), **VALUES)
    sigma = training_sigma(file.tensor("rand.sigma_normal"), hp["P_mean"], hp["P_std"])
    torch.testing.assert_close(sigma, file.tensor("out.sigmas"), **VALUES)

    denoiser, cond, noise = Preconditioned(net, hp["sigma_data"]), condition(file), file.tensor("rand.noise")

    def denoise(x, sigma):
        return denoiser(x, sigma, cond)

    denoised = denoise(x + sigma[:, None] * noise, sigma)
    torch.testing.assert_close(denoised, file.tensor("out.denoised"), **VALUES)
    loss = edm_loss(denoise, x, sigma, noise, hp["sigma_data"]).mean()
    torch.testing.assert_close(loss, file.tensor("out.loss"), **VALUES)
    loss.backward()
    gradients = our_state(file, "out.grad.net.", hp["net"]["num_layers"])
    assert gradients.keys() == {name for name, p in net.named_parameters()}
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], **GRADIENTS)


@pytest.mark.parametrize("case", SAMPLES)
def test_heun_sampler(golden, case):
    file = golden(f"b4_sample_{case}")
    hp, cond = file.hp, condition(file)
    denoiser = Preconditioned(network(file, hp["net"]), hp["sigma_data"])
    sampler = DiffusionSampler(
        "stochastic_heun" if case.startswith("sto") else "heun",
        hp["num_sample_steps"],
        hp["sigma_min"],
        hp["sigma_max"],
        hp["rho"],
        Churn(hp["S_churn"], hp["S_tmin"], hp["S_tmax"], hp["S_noise"]),
    )
    eps = file.tensor("rand.eps")
    samples = sample_block(
        lambda x, sigma: denoiser(x, sigma, cond),
        fitted_normalizer(file, hp),
        sampler,
        file.tensor("rand.init"),
        lambda step: eps[step],
    )
    torch.testing.assert_close(samples, file.tensor("out.samples"), rtol=1e-4, atol=1e-4)


def test_normalizers(golden):
    file = golden("b6_normalizers")
    for name, variant in file.hp["variants"].items():
        hp = {"event_dim": file.hp["event_dim"], "normalizer_type": variant["type"], **variant}
        normalizer = fitted_normalizer(file, hp)
        if "target_std" in variant:
            normalizer.target_std = variant["target_std"]
        buffers = ("min", "max") if variant["type"] == "minmax" else ("mean", "std")
        for buffer in buffers:
            value = file.tensor(f"out.{name}.{buffer}")
            torch.testing.assert_close(getattr(normalizer, buffer), value, rtol=1e-5, atol=1e-7)
        normalized = normalizer(file.tensor("in.x"))
        torch.testing.assert_close(normalized, file.tensor(f"out.{name}.normalized"), rtol=1e-3, atol=1e-5)
        back = normalizer.inverse(file.tensor(f"out.{name}.normalized"))
        torch.testing.assert_close(back, file.tensor(f"out.{name}.unnormalized"), rtol=1e-3, atol=1e-5)
        normalizer.fit(ColumnStatistics.of(file["in.data_reset"]))
        for buffer in buffers:
            value = file.tensor(f"out.{name}.reset.{buffer}")
            torch.testing.assert_close(getattr(normalizer, buffer), value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("case", ["term_thr", "noterm"])
def test_split_samples(golden, case):
    file = golden("b6_split_samples")
    spec = TransitionSpec(file.hp["obs_dim"], file.hp["act_dim"], discount=0.99, terminal=case == "term_thr")
    parts = spec.unflatten(file.tensor("in.samples")[:, : spec.dim])
    expected = file.state(f"out.{case}.")
    torch.testing.assert_close(parts.observation, expected["observations"])
    torch.testing.assert_close(parts.action, expected["actions"])
    torch.testing.assert_close(parts.reward[:, 0], expected["rewards"])
    torch.testing.assert_close(parts.next_observation, expected["next_observations"])
    if case == "term_thr":
        torch.testing.assert_close((parts.discount[:, 0] == 0).float(), expected["terminals"].float())


class Replayed(LatentDiffusion):
    """The module with the recorded draws instead of fresh ones, keeping what it did."""

    def replay(self, file):
        self.draws = list(zip(file.tensor("rand.sigma_normal"), file.tensor("rand.noise"), strict=True))
        self.history: list[dict[str, torch.Tensor]] = []
        self.lrs: list[float] = []
        self.first_grads: dict[str, torch.Tensor] = {}
        self.states: list[dict[str, torch.Tensor]] = []

    def draw(self, rows):
        return self.draws[len(self.history)]

    def manual_backward(self, loss, *args, **kwargs):
        super().manual_backward(loss, *args, **kwargs)
        if not self.history:
            self.first_grads = {k: p.grad.clone() for k, p in self.denoiser.network.named_parameters()}

    def update(self, rows):
        self.lrs.append(self.optimizers().param_groups[0]["lr"])
        metrics = super().update(rows)
        self.history.append(metrics)
        nets = {"param": self.denoiser.network, "ema": self.ema.model.network}
        self.states.append(
            {f"{k}.{n}": v.clone() for k, m in nets.items() for n, v in m.state_dict().items()}
        )
        return metrics


@pytest.mark.parametrize("updates_per_step", [1, 5])
@pytest.mark.parametrize("case", ["b7_trainer_step", "b7_trainer_step_wd_ln"])
def test_training_under_a_trainer(golden, case, updates_per_step, tmp_path):
    file = golden(case)
    hp, net = file.hp, file.hp["net"]
    spec = TransitionSpec(hp["obs_dim"], hp["act_dim"], discount=0.99, terminal=True)
    model = Replayed(
        spec.to_dict(),
        width=net["mlp_width"],
        num_layers=net["num_layers"],
        time_dim=net["dim_t"],
        fourier_dim=net["learned_sinusoidal_dim"],
        layer_norm=net["layer_norm"],
        lr=hp["lr"],
        betas=hp["betas"],
        weight_decay=hp["weight_decay"],
        lr_schedule=hp["lr_scheduler"],
        num_training_steps=hp["train_num_steps"],
        grad_clip=hp["max_grad_norm"],
        ema_decay=hp["ema_beta"],
        ema_update_every=hp["ema_update_every"],
    )
    state = our_state(file, "init.net.", net["num_layers"])
    model.denoiser.network.load_state_dict(state)
    model.ema.model.network.load_state_dict(state)
    model.fit_normalizer(file["in.data"])
    model.replay(file)
    batches = list(file.tensor("in.batches"))
    blocks = [batches[i : i + updates_per_step] for i in range(0, len(batches), updates_per_step)]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=len(batches),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, torch.utils.data.DataLoader(blocks, batch_size=None))
    assert trainer.global_step == len(batches)
    losses = torch.stack([m["loss"] for m in model.history])
    torch.testing.assert_close(losses, file.tensor("out.loss").float(), rtol=1e-4, atol=2e-5)
    norms = torch.stack([m["grad_norm"] for m in model.history])
    torch.testing.assert_close(norms, file.tensor("out.grad_norm").float(), rtol=1e-4, atol=2e-5)
    lrs = [*model.lrs, trainer.optimizers[0].param_groups[0]["lr"]]
    np.testing.assert_allclose(lrs, file["out.lr"], rtol=1e-6)
    for name, value in our_state(file, "out.grad.net.", net["num_layers"]).items():
        torch.testing.assert_close(model.first_grads[name], value, **GRADIENTS)
    for update in (1, len(batches)):
        for kind in ("param", "ema"):
            for name, value in our_state(file, f"out.{kind}{update}.net.", net["num_layers"]).items():
                ours = model.states[update - 1][f"{kind}.{name}"]
                torch.testing.assert_close(ours, value, rtol=0, atol=0.002 * hp["lr"])


@pytest.mark.parametrize("tag", ["v0_8_3", "v0_2_3", "v0_8_3_every1_after5", "v0_2_3_every1_after5"])
def test_ema_rule(golden, tag):
    file = golden("b7_ema_scalar")
    hp = file.hp.get("every1_after5", file.hp) if tag.endswith("every1_after5") else file.hp

    class Scalar(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = nn.Parameter(file.tensor("in.init"), requires_grad=False)
            self.register_buffer("b", file.tensor("in.init_buffer"))

    model, ema = Scalar(), Scalar()
    settings = {
        "decay": hp["beta"],
        "update_every": hp["update_every"],
        "update_after": hp["update_after_step"],
    }
    for n in range(file.hp["calls"]):
        model.p.copy_(torch.tensor(file["in.param"][n]))
        model.b.copy_(torch.tensor(file["in.buffer"][n]))
        decay = ema_decay(n, **settings, restart=tag.startswith("v0_2_3"))
        if decay is not None:
            average(ema, model, decay)
        np.testing.assert_allclose(ema.p.item(), file[f"out.{tag}.ema"][n], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ema.b.item(), file[f"out.{tag}.ema_buffer"][n], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_lr_schedule(golden, schedule):
    file = golden("b7_lr_schedule")
    num_steps = file.hp["train_num_steps"]
    factor = lr_factor(schedule, num_steps)
    lrs = [file.hp["train_lr"] * factor(t) for t in range(num_steps + 1)]
    np.testing.assert_allclose(lrs, file[f"out.lr_{schedule}"], rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize("case", ["standard", "minmax_clamp", "standard_raw"])
def test_log_likelihood(golden, case):
    file = golden(f"b5_loglik_{case}")
    hp = file.hp
    denoise = Preconditioned(network(file, hp["net"]), hp["sigma_data"])
    x = file.tensor("in.x")
    for tag, tolerance in hp["tolerances"].items():
        ours = log_likelihood(
            clamped(denoise) if hp["clamp"] else denoise,
            fitted_normalizer(file, hp)(x) if hp.get("normalize", True) else x,
            file.tensor("rand.v"),
            sigma_min=hp["sigma_min"],
            sigma_max=hp["sigma_max"],
            tolerance=tolerance,
        )
        atol = 5e-2 if hp["clamp"] else 2e-2
        torch.testing.assert_close(ours, file.tensor(f"out.{tag}.log_likelihood"), rtol=0, atol=atol)
