"""Real frames nearest to synthetic latents."""

import numpy as np
import torch

from lightning_synther.data.episodes import Episodes
from lightning_synther.data.replay import PixelReplay
from lightning_synther.synthesis.neighbours import nearest, neighbour_figure
from lightning_synther.transition import TransitionSpec


def test_nearest_is_measured_in_units_of_each_columns_spread():
    candidates = torch.tensor([[0.0, 0.0], [1.0, 1000.0], [2.0, 500.0]])
    assert nearest(torch.tensor([[1.9, 520.0], [0.1, 10.0]]), candidates).tolist() == [2, 0]


def test_synthetic_copies_of_real_rows_show_their_own_frames():
    length = 12
    frames = np.broadcast_to(np.arange(length, dtype=np.uint8)[:, None, None, None] * 20, (length, 3, 16, 16))
    episodes = Episodes(
        np.ascontiguousarray(frames),
        np.zeros((length, 2), np.float32),
        np.zeros(length, np.float32),
        np.ones(length, np.float32),
        np.array([length]),
    )
    replay = PixelReplay(episodes)
    spec = TransitionSpec(observation_dim=1, action_dim=2, discount=0.99)
    rows = np.zeros((replay.num_transitions, spec.dim), np.float32)
    rows[:, spec.fields["observation"]] = np.arange(replay.num_transitions)[:, None]
    rows[:, spec.fields["next_observation"]] = np.arange(replay.num_transitions)[:, None] + 1
    figure = neighbour_figure(replay, rows, rows[3:6], spec, count=3)
    images = [axis.images[0].get_array() for axis in figure.axes]
    shown = [int(image[0, 0, 0]) // 20 for image in images]
    assert shown[6:9] == [3, 4, 5]  # synthetic s: transition i starts in row i
    assert shown[9:12] == [4, 5, 6]  # and ends one row later
