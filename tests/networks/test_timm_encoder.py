"""A timm model as the frozen encoder: its own preprocessing, components of features, sources of weights."""

import os

import numpy as np
import pytest
import torch

from lightning_synther.errors import BackendError, ConfigError, DataError
from lightning_synther.networks.frozen import load_encoder, make_encoder
from lightning_synther.networks.timm_encoder import TimmEncoder

timm = pytest.importorskip("timm")
NAME = "test_convnext.r160_in1k"  # 0.3 M parameters, made by timm for tests


def make(**settings):
    encoder = TimmEncoder(
        NAME, **{"weights": "random", "num_components": 3, "input_size": 32, "frame_size": 20, **settings}
    )
    encoder.load_weights()
    return encoder


@pytest.fixture(scope="module")
def encoder():
    return make()


def images(num, size=20, seed=0):
    return torch.randint(
        256, (num, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("name", ["test_convnext.r160_in1k", "test_vit.r160_in1k"])
def test_preprocessing_is_the_models_own(name):
    from PIL import Image

    encoder = TimmEncoder(name, weights="random", num_components=1, center_crop=True, frame_size=84)
    config = timm.data.resolve_model_data_config(encoder.backbone)
    transform = timm.data.create_transform(**config, is_training=False)
    smooth = torch.nn.functional.interpolate(images(2, 6).float(), 84, mode="bicubic").clamp(0, 255).byte()
    expected = torch.stack([transform(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in smooth])
    found = encoder.preprocess(smooth)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 2.1 / 255 / min(config["std"])  # whole levels of a byte


def test_without_a_crop_the_model_sees_the_whole_frame():
    frame = torch.zeros(1, 3, 84, 84, dtype=torch.uint8)
    frame[:, :, 0, :] = 255
    encoder = make(input_size=None)
    low, high = encoder.preprocess(frame).aminmax()
    assert encoder.preprocess(frame)[0, :, 0].mean() > (low + high) / 2
    cropped = make(center_crop=True, input_size=None).preprocess(frame)
    assert cropped[0, :, 0].mean() < (low + high) / 2


def test_components_are_those_of_the_training_frames(encoder):
    generator = np.random.default_rng(0)
    features = generator.standard_normal((200, encoder.num_features)).astype(np.float32)
    features *= np.linspace(3, 0.1, encoder.num_features, dtype=np.float32)
    stacks = np.arange(2, 150)[:, None] + np.array([-2, -1, 0])
    kept = encoder.fit(features, stacks)
    training = features[:150] - features[:150].mean(0)
    _, values, vectors = np.linalg.svd(training, full_matrices=False)
    assert kept == pytest.approx((values[:3] ** 2).sum() / (values**2).sum(), rel=1e-5)
    reduced = training @ vectors[:3].T
    overlap = np.abs(encoder.components.numpy().T @ vectors[:3].T)
    np.testing.assert_allclose(overlap, np.eye(3), atol=1e-4)

    z = encoder.latents(torch.from_numpy(features[stacks]))
    assert z.shape == (148, encoder.latent_dim) == (148, 9)
    np.testing.assert_allclose(z.std(0, unbiased=False), np.ones(9), rtol=1e-4)
    newest, moved, before = (np.abs(part) for part in np.split(z.numpy(), 3, axis=1))
    for part, expected in (
        (newest, reduced[stacks[:, 2]]),
        (moved, reduced[stacks[:, 2]] - reduced[stacks[:, 1]]),
        (before, reduced[stacks[:, 1]] - reduced[stacks[:, 0]]),
    ):
        np.testing.assert_allclose(part, np.abs(expected) / expected.std(0), atol=2e-3)


def test_it_stays_frozen_and_in_evaluation_mode(encoder):
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_it_is_rebuilt_from_a_checkpoint_without_hub_or_file(tmp_path):
    encoder = make(weights="random")
    encoder.config["weights"] = "pretrained"  # as if
    encoder.fit(
        np.random.default_rng(0).standard_normal((20, encoder.num_features), np.float32),
        np.arange(18)[:, None] + np.arange(3),
    )
    path = tmp_path / "final.ckpt"
    hparams = {"observation": "backbone", "encoder_config": encoder.config}
    torch.save({"hyper_parameters": hparams, "state_dict": encoder.state_dict()}, path)
    loaded = load_encoder(path)
    frames = images(3).repeat(1, 3, 1, 1)
    torch.testing.assert_close(loaded.encode(frames), encoder.encode(frames))
    assert loaded.fingerprint == encoder.fingerprint != make(input_size=48).fingerprint
    assert make_encoder(encoder.config).latent_dim == encoder.latent_dim


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_of_a_file(tmp_path, suffix):
    import safetensors.torch

    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = timm.create_model(NAME, pretrained=False)  # with its classifier, as files have
    path = tmp_path / f"weights.{suffix}"
    save = safetensors.torch.save_file if suffix == "safetensors" else torch.save
    save(model.state_dict(), path)
    encoder = make(weights=str(path))
    own = encoder.backbone.state_dict()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in own.items())
    assert encoder.fingerprint != make().fingerprint


def test_random_weights_are_the_same_every_time(encoder):
    torch.manual_seed(123)
    assert make().fingerprint == encoder.fingerprint
    assert torch.initial_seed() == 123


def test_a_hub_that_does_not_answer_says_how_to_give_a_file(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("We couldn't connect to 'https://huggingface.co'\nmore lines")

    encoder = TimmEncoder(NAME, num_components=3)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        BackendError, match=r"cannot be fetched .* give the file as encoder\.model\.init_args\.weights"
    ):
        encoder.load_weights()


def test_wrong_files(tmp_path):
    with pytest.raises(DataError, match="do not exist"):
        make(weights=str(tmp_path / "none.pth"))
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(DataError, match=r"text\.pth are not those of test_convnext"):
        make(weights=str(tmp_path / "text.pth"))
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"other\.pth are not those of test_convnext"):
        make(weights=os.fspath(tmp_path / "other.pth"))


def test_wrong_settings(encoder):
    with pytest.raises(ConfigError, match="timm has no model 'resnett50'"):
        TimmEncoder("resnett50")
    with pytest.raises(ConfigError, match=r"num_components is 9999, but .* give 1 to"):
        make(num_components=9999)
    with pytest.raises(ConfigError, match="not fitted"):
        make().encode(images(2).repeat(1, 3, 1, 1))
    with pytest.raises(DataError, match=r"frames are \(9, 24, 24\), the encoder was made for \(9, 20, 20\)"):
        encoder.encode(images(2, 24).repeat(1, 3, 1, 1))
    with pytest.raises(DataError, match="too few for 3 components"):
        encoder.fit(np.zeros((3, encoder.num_features), np.float32), np.array([[0, 1, 2]]))
