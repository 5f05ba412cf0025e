"""A decoder finds the frame in a latent that holds it, and says what it was not made for."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

import lightning_synther
from lightning_synther.data.episodes import Episodes
from lightning_synther.data.replay import PixelReplay
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.errors import DataError
from lightning_synther.networks.decoder import FrameDecoder
from lightning_synther.synthesis.decoder import (
    DecoderData,
    LatentDecoder,
    decode,
    decoded_figure,
    load_decoder,
    newest_frames,
    psnr,
)
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=3, action_dim=1, discount=0.9)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """A replay whose frames have one colour each, and a store whose latents are these colours; two views."""
    length = 60
    colours = np.random.default_rng(0).integers(256, size=(length, 3), dtype=np.uint8)
    frames = np.broadcast_to(colours[:, :, None, None], (length, 3, 16, 16))
    episodes = Episodes(
        np.ascontiguousarray(frames),
        np.zeros((length, 1), np.float32),
        np.zeros(length, np.float32),
        np.ones(length, np.float32),
        np.array([length]),
    )
    replay = PixelReplay(episodes, frame_stack=2)
    rows = np.zeros((2 * replay.num_transitions, SPEC.dim), np.float32)
    rows[:, SPEC.fields["observation"]] = colours[replay.observation_rows].repeat(2, axis=0)
    rows[:, SPEC.fields["next_observation"]] = colours[replay.next_rows].repeat(2, axis=0)
    path = tmp_path_factory.mktemp("decoder") / "store"
    with StoreWriter(path, SPEC, len(rows), seed=0, producer="test", fingerprint="") as writer:
        writer.write(0, rows)
        writer.commit()
    return replay, rows, path


@pytest.fixture(scope="module")
def trained(pixels, tmp_path_factory):
    replay, rows, path = pixels
    torch.manual_seed(0)
    decoder = LatentDecoder(3, image_size=16, width=16, lr=1e-2)
    decoder.fit_normalizer(rows[:, :3])
    folder = tmp_path_factory.mktemp("trained")
    trainer = pl.Trainer(
        max_steps=150,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(decoder, datamodule=DecoderData(path, replay, views=2, batch_size=32))
    assert trainer.global_step == 150
    trainer.save_checkpoint(folder / "final.ckpt")
    return folder / "final.ckpt"


def test_batches_are_latents_and_their_frames(pixels):
    replay, _, path = pixels
    data = DecoderData(path, replay, views=2, batch_size=64)
    for latents, frames in data.batches(range(4)):
        assert (frames.float() == latents[:, :, None, None]).all()
    assert torch.equal(data.batches(range(3, 4))[0][0], data.batches(range(2, 4))[1][0])


def test_a_decoder_learns_the_frames(pixels, trained):
    replay, rows, path = pixels
    pairs = DecoderData(path, replay, views=2, batch_size=64, seed=9).batches(range(1))[0]
    assert psnr(load_decoder(trained), pairs) > 18  # 11 for the mean colour
    frames = decode(trained, rows[:4, :3])
    assert frames.shape == (4, 3, 16, 16)
    assert frames.dtype == torch.uint8
    assert (frames.float().mean((2, 3)) - torch.from_numpy(rows[:4, :3])).abs().max() < 50
    assert torch.equal(
        lightning_synther.decode(load_decoder(trained), torch.from_numpy(rows[:4, :3])), frames
    )


def test_the_figure_shows_frames_above_what_is_decoded(pixels, trained):
    replay, rows, _ = pixels
    figure = decoded_figure(load_decoder(trained), replay, rows, rows[::-1].copy(), SPEC, views=2, count=3)
    labels = [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()]
    assert labels == ["real s", "real s'", "decoded s", "decoded s'", "synthetic s", "synthetic s'"]
    images = np.array([axis.images[0].get_array().mean((0, 1)) for axis in figure.axes]).reshape(6, 3, 3)
    assert np.abs(images[0] - images[2]).mean() < 25
    assert np.abs(images[1] - images[3]).mean() < 25
    shown = newest_frames(replay, replay.observation_rows).float().mean((2, 3)).numpy()
    assert all((np.abs(shown - colour).max(1) < 1e-3).any() for colour in images[0])


@pytest.mark.parametrize("size", [16, 64, 84])
def test_frames_of_any_size(size):
    assert FrameDecoder(5, size, width=8)(torch.zeros(2, 5)).shape == (2, 3, size, size)


def test_what_is_no_decoder_or_not_its_latents(trained, tmp_path):
    with pytest.raises(DataError, match=r"latents are \(2, 4\), the decoder was trained on \(B, 3\)"):
        decode(trained, np.zeros((2, 4), np.float32))
    torch.save({"hyper_parameters": {}, "state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(DataError, match="holds no decoder"):
        decode(tmp_path / "other.ckpt", np.zeros((2, 3), np.float32))
    with pytest.raises(DataError, match="does not exist"):
        decode(tmp_path / "none.ckpt", np.zeros((2, 3), np.float32))
