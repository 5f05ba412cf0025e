from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from lightning_synther.diffusion.ema import EMA, ema_decay


def test_without_warmup_it_is_torchs_average():
    """The rule of Lightning's EMAWeightAveraging(decay, update_every_n_steps)."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    ours = EMA(model, 0.9, 3, warmup=False)
    theirs = AveragedModel(model, avg_fn=get_ema_avg_fn(0.9))
    for step in range(20):
        nn.init.normal_(model.weight)
        ours.update(model)
        if step % 3 == 0:
            theirs.update_parameters(model)
        torch.testing.assert_close(ours.model.weight, theirs.module.weight)


def test_warmup_reaches_the_final_decay():
    decays = [d for call in range(3000) if (d := ema_decay(call)) is not None]
    assert decays[:11] == [0.0] * 11
    assert decays == sorted(decays)
    assert decays[-1] == 0.995
    assert ema_decay(2920) < 0.995 == ema_decay(2930)


def test_integer_buffers_are_copied_and_float_buffers_averaged():
    model = nn.BatchNorm1d(2)
    ema = EMA(model, 0.5, 1, warmup=False)
    for count, mean in ((1, 2.0), (5, 4.0)):
        model.num_batches_tracked.fill_(count)
        model.running_mean.fill_(mean)
        ema.update(model)
    assert ema.model.num_batches_tracked == 5
    assert ema.model.running_mean.tolist() == [3.0, 3.0]


def test_the_counter_is_part_of_the_state():
    model = nn.Linear(3, 2)
    ema, resumed = EMA(model, 0.9, 3), EMA(model, 0.9, 3)
    for _ in range(7):
        ema.update(model)
    resumed.load_state_dict(ema.state_dict())
    assert resumed.num_calls == 7


def test_the_average_takes_no_gradient():
    ema = EMA(nn.Linear(3, 2))
    assert not any(p.requires_grad for p in ema.parameters())
