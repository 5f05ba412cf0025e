"""The pixel replay against a reference that slices arrays episode by episode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_synther.data.episodes import Episodes, pad_frames
from lightning_synther.data.replay import PixelReplay
from lightning_synther.errors import ConfigError, DataError

SIZE = 7


def make_episodes(lengths, stored_pad=None, seed=0, size=SIZE):
    rng = np.random.default_rng(seed)
    num_rows = sum(lengths)
    frames = rng.integers(0, 256, (num_rows, 3, size, size), dtype=np.uint8)
    fields = {
        "action": rng.uniform(-1, 1, (num_rows, 2)).astype(np.float32),
        "reward": rng.normal(size=num_rows).astype(np.float32),
        "discount": rng.uniform(size=num_rows).astype(np.float32),
        "lengths": np.array(lengths),
    }
    if stored_pad is None:
        return Episodes(frames, **fields)
    return Episodes.from_padded(pad_frames(frames, stored_pad), stored_pad, **fields)


def reference(episodes, frame_stack, n_step, gamma, pad, shifts):
    """All transitions in order, one by one; ``shifts`` (2, M, 2)."""
    out, start = [], 0
    for length in episodes.lengths:
        frames = episodes.frames[start : start + length]
        for t in range(1, length - n_step + 1):
            images = []
            for end, (x, y) in zip((t - 1, t + n_step - 1), shifts[:, len(out)], strict=True):
                stack = np.concatenate([frames[max(end - k, 0)] for k in reversed(range(frame_stack))])
                padded = np.pad(stack, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
                images.append(padded[:, y : y + SIZE, x : x + SIZE])
            reward = sum(gamma**j * float(episodes.reward[start + t + j]) for j in range(n_step))
            discount = gamma**n_step * float(episodes.discount[start + t + n_step - 1])
            out.append((images[0], episodes.action[start + t], [reward], images[1], [discount]))
        start += length
    return [torch.from_numpy(np.stack(column)) for column in zip(*out, strict=True)]


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 7), min_size=1, max_size=4),
    frame_stack=st.integers(1, 4),
    n_step=st.integers(1, 6),
    pad=st.integers(0, 3),
    stored_pad=st.sampled_from([None, 2, 4]),
    seed=st.integers(0, 99),
)
def test_gather_equals_the_reference(lengths, frame_stack, n_step, pad, stored_pad, seed):
    episodes = make_episodes(lengths, stored_pad, seed)
    options = {"frame_stack": frame_stack, "n_step": n_step, "gamma": 0.9, "pad": pad}
    count = sum(max(length - n_step, 0) for length in lengths)
    if count == 0:
        with pytest.raises(DataError, match=f"no episode is longer than n_step {n_step}"):
            PixelReplay(episodes, **options)
        return
    replay = PixelReplay(episodes, **options)
    assert len(replay) == replay.num_transitions == count
    shifts = replay.draw_shifts((2, count), np.random.default_rng(seed))
    found = replay.gather(np.arange(count), shifts)
    wanted = reference(episodes, frame_stack, n_step, 0.9, pad, shifts)
    for field, got, expected in zip(found._fields, found, wanted, strict=True):
        torch.testing.assert_close(got, expected.to(got.dtype), msg=lambda m, f=field: f"{f}: {m}")


def test_shapes_and_dtypes_of_a_batch():
    batch = PixelReplay(make_episodes([9, 8]), n_step=3).sample(5, np.random.default_rng(0))
    assert [(tuple(x.shape), x.dtype) for x in batch] == [
        ((5, 9, SIZE, SIZE), torch.uint8),
        ((5, 2), torch.float32),
        ((5, 1), torch.float32),
        ((5, 9, SIZE, SIZE), torch.uint8),
        ((5, 1), torch.float32),
    ]
    assert batch.observation.is_contiguous()


def test_a_sample_is_a_function_of_its_generator():
    replay = PixelReplay(make_episodes([9, 8]))
    first = replay.sample(16, np.random.default_rng(3))
    replay.sample(16, np.random.default_rng(4))
    again = replay.sample(16, np.random.default_rng(3))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = replay.sample(16, np.random.default_rng(4))
    assert not torch.equal(first.observation, other.observation)


def test_the_two_observations_are_shifted_apart():
    """One still picture: any difference between the two observations is a difference of shifts."""
    episodes = make_episodes([9])
    still = np.repeat(episodes.frames[:1], 9, axis=0)
    replay = PixelReplay(
        Episodes(still, episodes.action, episodes.reward, episodes.discount, episodes.lengths)
    )
    batch = replay.sample(32, np.random.default_rng(0))
    assert not torch.equal(batch.observation, batch.next_observation)
    plain = replay.sample(32, np.random.default_rng(0), shift=False)
    assert torch.equal(plain.observation, plain.next_observation)
    assert torch.equal(plain.observation[0, :3], torch.from_numpy(still[0]))


def test_every_transition_and_every_shift_is_drawn():
    replay = PixelReplay(make_episodes([4, 5]))
    rng = np.random.default_rng(0)
    actions = {tuple(a) for a in replay.sample(400, rng).action.tolist()}
    assert len(actions) == replay.num_transitions == 7
    shifts = replay.draw_shifts((5000,), rng)
    assert len(np.unique(shifts, axis=0)) == 81


def test_a_subset_draws_from_its_episodes_alone():
    episodes = make_episodes([4, 5, 6])
    replay = PixelReplay(episodes, subset=[1])
    assert replay.rows.tolist() == [5, 6, 7, 8]
    found = {tuple(a) for a in replay.sample(200, np.random.default_rng(0)).action.tolist()}
    assert found == {tuple(a) for a in episodes.action[5:9].tolist()}


def test_frames_that_are_already_padded_are_not_copied():
    episodes = make_episodes([6, 5], stored_pad=4)
    replay = PixelReplay(episodes)
    before = replay.gather([0]).observation.clone()
    episodes.padded[0] ^= 255
    assert torch.equal(replay.gather([0]).observation, before ^ 255)


def test_frames_at_gives_the_observations_of_transitions():
    replay = PixelReplay(make_episodes([6, 5]), n_step=2)
    batch = replay.gather([0, 3, 5])
    assert torch.equal(replay.frames_at(replay.observation_rows[[0, 3, 5]]), batch.observation)
    assert torch.equal(replay.frames_at(replay.next_rows[[0, 3, 5]]), batch.next_observation)


@pytest.mark.parametrize("shift", [-1, 9])
def test_a_shift_outside_the_margin_is_refused(shift):
    replay = PixelReplay(make_episodes([6]))
    with pytest.raises(ConfigError, match=r"shifts reach from .*: keep them in 0 \.\.\. 8"):
        replay.frames_at([1], [[4, shift]])


@pytest.mark.parametrize("setting", [{"frame_stack": 0}, {"n_step": 0}, {"pad": -1}])
def test_impossible_settings_are_refused(setting):
    with pytest.raises(ConfigError, match="give frame_stack >= 1, n_step >= 1 and pad >= 0"):
        PixelReplay(make_episodes([6]), **setting)
