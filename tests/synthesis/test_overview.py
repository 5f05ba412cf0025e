"""Principal components, rewards and discounts: what is drawn is what is there."""

import numpy as np
import pytest
import torch

from lightning_synther.synthesis.overview import pca_figure, reward_figure
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=3, action_dim=2, discount=0.95, terminal=True)


def rows(num, seed, ended=0.25):
    made = torch.randn(num, SPEC.dim, generator=torch.Generator().manual_seed(seed))
    made[:, -1] = (torch.arange(num) < ended * num).float()
    return made


def test_the_components_are_those_of_the_real_rows():
    real = rows(1000, 0)
    real[:, 1] = real[:, 0] + 0.01 * real[:, 1]  # two columns that are nearly one: the first component
    made = real.clone()
    made[:, 1] = -made[:, 0]  # breaks that relation, and nothing of the marginals
    figure = pca_figure(real, made, SPEC)
    axis = figure.axes[0]
    spread = [float(np.asarray(points.get_offsets())[:, 0].std()) for points in axis.collections]
    assert spread[0] == pytest.approx(2**0.5, rel=0.1)
    assert spread[1] < 0.5 * spread[0]
    assert axis.get_xlabel() == "component 1 (20% of variance)"
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["real", "synthetic"]


def test_shares_of_the_discounts():
    figure = reward_figure(rows(400, 0, ended=0.25), rows(400, 1, ended=0.5), SPEC)
    heights = [round(bar.get_height(), 3) for bar in figure.axes[2].patches]
    assert heights == [0.75, 0.25, 0.5, 0.5]
    assert [label.get_text() for label in figure.axes[2].get_xticklabels()] == ["0.95", "0 (end)"]


def test_without_a_terminal_column_every_discount_is_the_same():
    spec = TransitionSpec(observation_dim=3, action_dim=2, discount=0.95)
    figure = reward_figure(rows(50, 0)[:, :-1], rows(50, 1)[:, :-1], spec)
    assert [bar.get_height() for bar in figure.axes[2].patches] == [1, 0, 1, 0]


def test_quantiles_of_equal_rewards_lie_on_the_diagonal():
    figure = reward_figure(rows(300, 0), rows(300, 0), SPEC)
    x, y = figure.axes[1].lines[1].get_data()
    np.testing.assert_allclose(x, y)
    assert "KS of the reward 0.000" in figure.get_suptitle()
