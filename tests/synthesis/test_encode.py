import numpy as np
import pytest
import torch

from lightning_synther.data.episodes import Episodes
from lightning_synther.data.replay import PixelReplay
from lightning_synther.data.store import TransitionStore
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.networks.encoders import LatentEncoder
from lightning_synther.seeding import derive_seed
from lightning_synther.synthesis import encode
from lightning_synther.synthesis.encode import encode_dataset, transition_spec

SIZE = 20


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(encode, "TRANSITIONS_PER_CHUNK", 8)


def make_episodes(lengths=(12, 9, 15), end=None):
    generator = np.random.default_rng(0)
    num = sum(lengths)
    discount = np.ones(num, np.float32)
    if end is not None:
        discount[end] = 0
    return Episodes(
        frames=generator.integers(256, size=(num, 3, SIZE, SIZE), dtype=np.uint8),
        action=generator.uniform(-1, 1, (num, 2)).astype(np.float32),
        reward=generator.standard_normal(num).astype(np.float32),
        discount=discount,
        lengths=np.array(lengths),
    )


def make_replay(n_step=3, end=None, subset=None):
    return PixelReplay(make_episodes(end=end), frame_stack=2, n_step=n_step, gamma=0.9, pad=2, subset=subset)


def make_encoder(critic=True):
    torch.manual_seed(0)
    return LatentEncoder(image_size=SIZE, frame_stack=2, feature_dim=5, critic=critic)


def expected_rows(replay, encoder, store, shifts=None):
    batch = replay.gather(np.arange(replay.num_transitions), shifts)
    z, z_next = encoder.encode(batch.observation), encoder.encode_next(batch.next_observation)
    return store.spec.flatten(batch._replace(observation=z, next_observation=z_next))


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("critic", [True, False])
def test_rows_are_the_encoded_transitions_in_order(tmp_path, n_step, critic):
    replay, encoder = make_replay(n_step), make_encoder(critic)
    store = encode_dataset(replay, encoder, tmp_path / "store", batch_size=5)
    assert len(store) == replay.num_transitions == 36 - 3 * n_step
    assert store.spec.observation_dim == encoder.latent_dim == (10 if critic else 5)
    assert store.spec.discount == pytest.approx(0.9**n_step)
    assert not store.spec.terminal
    assert store.metadata.extra["n_step"] == n_step
    torch.testing.assert_close(store.load(), expected_rows(replay, encoder, store))


def test_z_and_next_z_differ_only_by_the_target_critic(tmp_path):
    replay, encoder = make_replay(n_step=1), make_encoder()
    store = encode_dataset(replay, encoder, tmp_path / "store")
    transition = store.spec.unflatten(store.load())
    # Within an episode, the next observation of one transition is the observation of the one after it.
    z, z_next = transition.observation[1:11], transition.next_observation[:10]
    torch.testing.assert_close(z[:, encoder.actor_slice], z_next[:, encoder.actor_slice])
    assert not torch.allclose(z[:, encoder.critic_slice], z_next[:, encoder.critic_slice])


def test_each_frame_stack_is_encoded_about_once(tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "TRANSITIONS_PER_CHUNK", 1000)
    replay, encoder = make_replay(n_step=3), make_encoder()
    seen = []
    encoder.encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    encode_dataset(replay, encoder, tmp_path / "store", batch_size=16)
    assert sum(seen) == 36


def test_shifted_views_lie_next_to_each_other_and_differ(tmp_path):
    replay, encoder = make_replay(), make_encoder()
    store = encode_dataset(replay, encoder, tmp_path / "store", views=3, shift=True, seed=4)
    assert len(store) == 3 * replay.num_transitions
    rows = store.load().reshape(replay.num_transitions, 3, -1)
    fields = store.spec.fields
    for name in ("action", "reward"):
        assert (rows[:, :, fields[name]] == rows[:, :1, fields[name]]).all()
    for view in range(3):
        drawn = [
            replay.draw_shifts((2, num), np.random.default_rng(derive_seed(4, "encode", view, chunk)))
            for chunk, num in enumerate((8, 8, 8, 3))
        ]
        expected = expected_rows(replay, encoder, store, np.concatenate(drawn, axis=1))
        torch.testing.assert_close(rows[:, view], expected)
    assert not torch.allclose(rows[:, 0, fields["observation"]], rows[:, 1, fields["observation"]])
    again = encode_dataset(replay, encoder, tmp_path / "again", views=3, shift=True, seed=4)
    np.testing.assert_array_equal(again.rows, store.rows)
    other = encode_dataset(replay, encoder, tmp_path / "other", views=3, shift=True, seed=5)
    assert not np.array_equal(other.rows, store.rows)


def test_more_views_keep_the_first_ones(tmp_path):
    replay, encoder = make_replay(), make_encoder()
    one = encode_dataset(replay, encoder, tmp_path / "one", shift=True)
    two = encode_dataset(replay, encoder, tmp_path / "two", views=2, shift=True)
    np.testing.assert_array_equal(two.rows[::2], one.rows)


@pytest.mark.parametrize("settings", [{}, {"shift": True, "views": 2}])
def test_an_interrupted_encoding_is_continued(tmp_path, monkeypatch, settings):
    replay, encoder = make_replay(), make_encoder()
    whole = encode_dataset(replay, encoder, tmp_path / "whole", **settings)
    work = encode._ChunkEncoder.encode

    def stop(self, chunk):
        if chunk == 2:
            raise KeyboardInterrupt
        return work(self, chunk)

    monkeypatch.setattr(encode._ChunkEncoder, "encode", stop)
    with pytest.raises(KeyboardInterrupt):
        encode_dataset(replay, encoder, tmp_path / "store", **settings)
    seen = []
    monkeypatch.setattr(encode._ChunkEncoder, "encode", lambda self, c: seen.append(c) or work(self, c))
    store = encode_dataset(replay, encoder, tmp_path / "store", **settings)
    assert seen == [2, 3]
    np.testing.assert_array_equal(store.rows, whole.rows)
    encode_dataset(replay, encoder, tmp_path / "store", **settings)
    assert seen == [2, 3]


def test_another_encoder_does_not_continue_a_store(tmp_path):
    encode_dataset(make_replay(), make_encoder(), tmp_path / "store", fingerprint="a")
    with pytest.raises(ConfigError, match="begun with fingerprint='a', now fingerprint='b'"):
        encode_dataset(make_replay(), make_encoder(), tmp_path / "store", fingerprint="b")


def test_episodes_that_end_for_good_have_a_terminal_column(tmp_path):
    replay = make_replay(end=11)  # the last row of the first episode
    store = encode_dataset(replay, make_encoder(), tmp_path / "store")
    assert store.spec.terminal
    discount = store.spec.unflatten(store.load()).discount
    torch.testing.assert_close(discount, replay.discount)
    assert (discount == 0).sum() == 1
    assert transition_spec(make_replay(end=11, subset=[1, 2]), 10) == store.spec


def test_discounts_that_a_row_cannot_hold(tmp_path):
    replay = make_replay()
    replay.discount[5] = 0.4
    with pytest.raises(DataError, match=r"discount 0\.4, .* gamma\*\*n_step = 0\.729 or 0"):
        encode_dataset(replay, make_encoder(), tmp_path / "store")


def test_views_without_shift(tmp_path):
    with pytest.raises(
        ConfigError, match=r"latents.views is 2 and latents.shift False: .* give views=1 or shift"
    ):
        encode_dataset(make_replay(), make_encoder(), tmp_path / "store", views=2)


def test_frames_of_another_size(tmp_path):
    encoder = LatentEncoder(image_size=24, frame_stack=2, feature_dim=5)
    with pytest.raises(DataError, match="the encoder was trained on"):
        encode_dataset(make_replay(), encoder, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    assert isinstance(encode_dataset(make_replay(), make_encoder(), tmp_path / "new"), TransitionStore)
