"""Features on disk: no frame goes through the backbone twice, and what is read is what pixels give."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from lightning_synther.data.replay import PixelReplay
from lightning_synther.data.windows import stack_rows
from lightning_synther.networks.timm_encoder import TimmEncoder
from lightning_synther.synthesis import features as features_file
from lightning_synther.synthesis.encode import encode_dataset
from lightning_synther.synthesis.features import features_folder, frame_features
from tests.synthesis.test_encode import SIZE, make_episodes

pytest.importorskip("timm")


@pytest.fixture
def counted(monkeypatch):
    """An encoder, and how many frames went through it."""
    monkeypatch.setattr(features_file, "FRAMES_PER_CHUNK", 8)
    encoder = TimmEncoder(
        "test_convnext.r160_in1k", "random", num_components=4, input_size=32, frame_size=SIZE, num_frames=2
    )
    seen = []
    encoder.backbone.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    return encoder, seen


def test_no_frame_is_encoded_twice_and_rows_are_those_of_the_pixels(counted, tmp_path):
    encoder, seen = counted
    episodes = make_episodes()
    replay = PixelReplay(episodes, frame_stack=2, n_step=1, gamma=0.9, pad=2)
    features = frame_features(episodes, encoder, tmp_path / "cache", batch_size=5)
    assert features.shape == (36, encoder.num_features)
    encoder.fit(features, stack_rows(replay.observation_rows, episodes.lengths, 2))
    store = encode_dataset(replay, encoder, tmp_path / "store", features=features)
    assert frame_features(episodes, encoder, tmp_path / "cache").tobytes() == features.tobytes()
    assert sum(seen) == 36
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".lock", ".npy"]

    batch = replay.gather(np.arange(replay.num_transitions))
    transition = store.spec.unflatten(store.load())
    torch.testing.assert_close(
        transition.observation, encoder.encode(batch.observation), atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(
        transition.next_observation, encoder.encode(batch.next_observation), atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(transition.reward, batch.reward)


def test_an_interrupted_file_is_continued(counted, tmp_path, monkeypatch):
    encoder, seen = counted
    whole = frame_features(make_episodes(), encoder, tmp_path / "whole")
    work, calls = TimmEncoder.features, []

    def stop(self, frames):
        calls.append(len(frames))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return work(self, frames)

    monkeypatch.setattr(TimmEncoder, "features", stop)
    with pytest.raises(KeyboardInterrupt):
        frame_features(make_episodes(), encoder, tmp_path / "cache", batch_size=4)
    monkeypatch.undo()
    monkeypatch.setattr(features_file, "FRAMES_PER_CHUNK", 8)
    seen.clear()
    np.testing.assert_allclose(frame_features(make_episodes(), encoder, tmp_path / "cache"), whole, atol=1e-4)
    assert sum(seen) == 36 - 8  # one chunk was whole


def test_of_two_that_start_together_one_waits_for_the_other(counted, tmp_path, monkeypatch):
    encoder, seen = counted
    work, begun = TimmEncoder.features, threading.Event()

    def slow(self, frames):
        begun.set()
        time.sleep(0.05)
        return work(self, frames)

    monkeypatch.setattr(TimmEncoder, "features", slow)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(frame_features, make_episodes(), encoder, tmp_path / "cache")
        assert begun.wait(10)
        second = pool.submit(frame_features, make_episodes(), encoder, tmp_path / "cache")
        np.testing.assert_array_equal(first.result(), second.result())
    assert sum(seen) == 36


def test_features_lie_beside_the_data_or_in_the_run(tmp_path, monkeypatch):
    assert features_folder(tmp_path, tmp_path / "run") == tmp_path / ".cache" / "features"
    monkeypatch.setattr(features_file.os, "access", lambda path, mode: False)
    assert features_folder(tmp_path, tmp_path / "run") == tmp_path / "run" / "features"
