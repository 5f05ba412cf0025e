"""Any timm model as the frozen encoder: per-frame features, their principal components, and how these move."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_synther.errors import BackendError, ConfigError, DataError

_BLOCK_ROWS = 8_192
_INSTALL = "a timm backbone needs the extra `timm`: pip install 'lightning-synther[timm]'"


class TimmEncoder(nn.Module):
    """A frozen image model from timm: frames in, latents out.

    Every frame of a stack is resized to the model's input size and normalised as the model's own data config says,
    and becomes its pooled features (F,). They are reduced to principal components (`fit`), and z is those of the
    newest frame followed by the differences between successive frames, newest first: (frame_stack *
    num_components,), each column divided by its standard deviation in the training data. Differences, because what
    moves is a small part of a frame's features: beside whole frames, noise of a given share of each column would
    hide it. z and z' are made alike; the agent's trunks, which train, stand behind them.

    Args:
        model_name: any of ``timm.list_models()``, with its pretrained tag (``vit_small_patch14_dinov2.lvd142m``).
        weights: ``pretrained`` downloads those of the tag from the hub, ``random`` keeps random ones (the same
            every time), anything else is the path of a file with the model's weights.
        num_components: principal components kept of a frame.
        input_size: pixels a side that frames are resized to; None takes the model's own.
        center_crop: resize and crop as in the model's own evaluation. It cuts off the margins of a scene, so the
            default shows the model all of it.
        frame_size: pixels a side of the data's frames.
        num_frames: frames in an observation.

    Raises `ConfigError` for a model that timm does not have, or more components than features.
    """

    mean: Tensor
    components: Tensor
    scale: Tensor
    fitted: Tensor

    def __init__(
        self,
        model_name: str,
        weights: str = "pretrained",
        num_components: int = 32,
        input_size: int | None = None,
        center_crop: bool = False,
        frame_size: int = 84,
        num_frames: int = 3,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "kind": "timm",
            "model_name": model_name,
            "weights": weights,
            "num_components": num_components,
            "input_size": input_size,
            "center_crop": center_crop,
            "image_size": frame_size,
            "frame_stack": num_frames,
        }
        self.weights, self.num_frames = weights, num_frames
        self.backbone = _create(model_name, input_size, pretrained=False)
        self.preprocessing = _data_config(self.backbone, input_size)
        with torch.no_grad():
            size = self.preprocessing["size"]
            self.num_features = int(self.backbone(torch.zeros(1, 3, size, size)).shape[-1])
        if not 1 <= num_components <= self.num_features:
            raise ConfigError(
                f"num_components is {num_components}, but {model_name} has {self.num_features} features a frame: "
                f"give 1 to {self.num_features}"
            )
        self.latent_dim = num_frames * num_components
        self.register_buffer("mean", torch.zeros(self.num_features))
        self.register_buffer("components", torch.zeros(self.num_features, num_components))
        self.register_buffer("scale", torch.ones(self.latent_dim))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TimmEncoder:
        """The encoder of a ``config``, its weights and components still to be loaded."""
        names = {"image_size": "frame_size", "frame_stack": "num_frames"}
        return cls(**{names.get(key, key): value for key, value in config.items() if key != "kind"})

    def train(self, mode: bool = True) -> TimmEncoder:
        """Stays in evaluation mode: a frozen model's batch statistics do not move, and nothing drops out."""
        return super().train(False)

    def load_weights(self) -> None:
        """Load what ``weights`` names into the backbone.

        Raises `BackendError` where the hub cannot be reached, `DataError` for a file that does not hold them.
        """
        if self.weights == "random":
            return
        name, size = self.config["model_name"], self.config["input_size"]
        if self.weights == "pretrained":
            self.backbone = _download(name, size)
        else:
            self.backbone = _from_file(name, size, Path(self.weights))
        self.requires_grad_(False)
        self.eval()

    @property
    def fingerprint(self) -> str:
        """Hash of all that the features of a frame depend on."""
        digest = hashlib.blake2b(repr(sorted(self.preprocessing.items())).encode(), digest_size=8)
        digest.update(repr((self.config["model_name"], self.config["center_crop"])).encode())
        for name, value in self.backbone.state_dict().items():
            digest.update(
                name.encode() + value.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            )
        return digest.hexdigest()

    def preprocess(self, frames: Tensor) -> Tensor:
        """Frames (N, 3, S, S) uint8 as the model's input (N, 3, H, W)."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional

        about = self.preprocessing
        size = about["size"]
        larger = int(size / about["crop_pct"]) if self.config["center_crop"] else size
        mode = InterpolationMode(about["interpolation"])
        frames = functional.resize(frames, [larger, larger], interpolation=mode, antialias=True)
        if larger != size:
            frames = functional.center_crop(frames, [size, size])
        mean, std = (
            frames.new_tensor(about[key], dtype=torch.float32)[:, None, None] for key in ("mean", "std")
        )
        return (frames.float() / 255 - mean) / std

    @torch.no_grad()
    def features(self, frames: Tensor) -> Tensor:
        """Features (N, F) of single frames (N, 3, S, S) uint8."""
        pooled: Tensor = self.backbone(self.preprocess(frames))
        return pooled.float()

    def latents(self, features: Tensor) -> Tensor:
        """z (B, latent_dim) from the features (B, num_frames, F) of stacks, oldest frame first."""
        if not torch.compiler.is_exporting() and not self.fitted:  # no program can branch on a buffer
            raise ConfigError("the encoder's principal components are not fitted: call fit(features, stacks)")
        return self._unscaled(features) / self.scale

    def _unscaled(self, features: Tensor) -> Tensor:
        reduced = ((features - self.mean) @ self.components).flip(1)  # newest frame first
        return torch.cat([reduced[:, :1], reduced[:, :-1] - reduced[:, 1:]], dim=1).flatten(1)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """z (B, latent_dim) of stacked frames (B, 3 * num_frames, S, S) uint8."""
        size = self.config["image_size"]
        if frames.shape[1:] != (3 * self.num_frames, size, size):
            raise DataError(
                f"frames are {tuple(frames.shape[1:])}, the encoder was made for "
                f"{(3 * self.num_frames, size, size)}: use the image_size and frame_stack of its dataset"
            )
        single = frames.unflatten(1, (self.num_frames, 3)).flatten(0, 1)
        return self.latents(self.features(single).unflatten(0, (-1, self.num_frames)))

    encode_next = forward = encode

    def encode_both(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """z and z' of the same frames, which are the same."""
        z = self.encode(frames)
        return z, z

    @torch.no_grad()
    def fit(self, features: NDArray[np.float32], stacks: NDArray[np.int64]) -> float:
        """Fit the components and their scale, once; returns the share of the frames' variance that they keep.

        Args:
            features: of every frame (N, F), may be a memory map.
            stacks: rows (M, num_frames) of the frames of each training observation, oldest first.
        """
        rows = np.unique(stacks)
        if len(rows) <= self.config["num_components"]:
            raise DataError(
                f"{len(rows)} training frames are too few for {self.config['num_components']} components: use more "
                "data, or fewer components"
            )
        mean = torch.zeros(self.num_features, dtype=torch.float64)
        for block in _blocks(features, rows):
            mean += block.sum(0) / len(rows)
        covariance = torch.zeros(self.num_features, self.num_features, dtype=torch.float64)
        for block in _blocks(features, rows):
            covariance += (block - mean).T @ (block - mean) / len(rows)
        self.mean.copy_(mean)
        values, vectors = torch.linalg.eigh(covariance)
        vectors = vectors.flip(1)[:, : self.config["num_components"]]
        largest = vectors.gather(
            0, vectors.abs().argmax(0, keepdim=True)
        )  # a sign that does not hang on LAPACK
        self.components.copy_(vectors * largest.sign())
        self._fit_scale(features, stacks)
        self.fitted.fill_(True)
        return float(values.flip(0)[: self.config["num_components"]].sum() / values.sum().clamp_min(1e-30))

    def _fit_scale(self, features: NDArray[np.float32], stacks: NDArray[np.int64]) -> None:
        sums = [torch.zeros(self.latent_dim, dtype=torch.float64) for _ in range(2)]
        for start in range(0, len(stacks), _BLOCK_ROWS):
            part = torch.from_numpy(features[stacks[start : start + _BLOCK_ROWS]])
            z = self._unscaled(part.to(self.mean.device)).double().cpu()
            sums[0] += z.sum(0)
            sums[1] += z.square().sum(0)
        mean = sums[0] / len(stacks)
        std = (sums[1] / len(stacks) - mean.square()).clamp_min(0).sqrt()
        self.scale.copy_(torch.where(std > 1e-6 * std.max(), std, torch.ones_like(std)))


def _blocks(features: NDArray[np.float32], rows: NDArray[np.int64]) -> Iterator[Tensor]:
    for start in range(0, len(rows), _BLOCK_ROWS):
        yield torch.from_numpy(features[rows[start : start + _BLOCK_ROWS]]).double()


def _timm() -> Any:
    try:
        import timm
        import torchvision  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{_INSTALL} ({error})") from error
    return timm


def _create(name: str, input_size: int | None, seed: int = 0, **options: Any) -> nn.Module:
    """The model without its classifier; random weights are the same in every process."""
    timm = _timm()
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.')[0][:8]}*")[:3]
        hint = f", did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(f"timm has no model {name!r}{hint or ': see timm.list_models()'}")
    if input_size is not None and getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
        options["img_size"] = input_size  # others take any size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = timm.create_model(name, num_classes=0, **options)
    return model.eval()


def _data_config(model: nn.Module, input_size: int | None) -> dict[str, Any]:
    """Size, interpolation, mean, deviation and crop of the model's own data config, as plain types."""
    config = _timm().data.resolve_model_data_config(model)
    return {
        "size": input_size or int(config["input_size"][-1]),
        "interpolation": str(config["interpolation"]),
        "mean": [float(value) for value in config["mean"]],
        "std": [float(value) for value in config["std"]],
        "crop_pct": float(config["crop_pct"]),
    }


def _download(name: str, input_size: int | None) -> nn.Module:
    try:
        return _create(name, input_size, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:  # the hub's exceptions are all of these
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise BackendError(
            f"the pretrained weights of {name} cannot be fetched ({type(error).__name__}: {reason}): connect to the "
            "hub, or download the model's weights elsewhere and give the file as encoder.model.init_args.weights"
        ) from error


def _from_file(name: str, input_size: int | None, path: Path) -> nn.Module:
    if not path.is_file():
        raise DataError(f"weights {path} do not exist: give a file, or 'pretrained' or 'random'")
    overlay = {"file": str(path)}
    try:
        # timm passes over what a file lacks, as the classifier is not wanted; what it lacks keeps random numbers.
        model, other = (
            _create(name, input_size, seed, pretrained=True, pretrained_cfg_overlay=overlay)
            for seed in (0, 1)
        )
    except Exception as error:  # whatever a foreign file leads to, in any of timm's readers
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise DataError(f"weights {path} are not those of {name} ({reason}): give another file") from error
    numbers = other.state_dict()
    lacking = [key for key, value in model.state_dict().items() if not torch.equal(value, numbers[key])]
    if lacking:
        raise DataError(
            f"weights {path} are not those of {name} ({len(lacking)} tensors are missing, {lacking[0]} first): give "
            "another file"
        )
    return model


#: Arguments that the dataset decides.
SIZES = {"frame_size", "num_frames"}
