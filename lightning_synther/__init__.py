"""Synthetic Experience Replay from pixels (Lu et al., NeurIPS 2023, arXiv 2303.06614), in PyTorch Lightning."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

#: Public names and where they live; imported on first use, so that `import lightning_synther` costs nothing.
_EXPORTS = {
    "Agent": "agents",
    "BC": "agents",
    "CQL": "agents",
    "CQLSAC": "agents",
    "DrQV2": "agents",
    "EDAC": "agents",
    "IQL": "agents",
    "LatentReplayDrQV2": "agents",
    "REDQ": "agents",
    "SAC": "agents.sac_module",
    "TD3BC": "agents",
    "LatentDecoder": "synthesis.decoder",
    "LatentDiffusion": "diffusion.module",
    "LatentEncoder": "networks.encoders",
    "OnlineData": "online.interaction",
    "OnlinePixelData": "online.pixels",
    "OnlinePixelSynthERData": "online.latent_replay",
    "OnlineSynthERData": "online.synthetic",
    "PixelData": "data.datamodules",
    "PixelReplay": "data.replay",
    "ReplayData": "data.datamodules",
    "RowData": "data.datamodules",
    "SynthERData": "stages.data",
    "SynthERStates": "stages.data",
    "TimmEncoder": "networks.timm_encoder",
    "Transition": "transition",
    "TransitionSpec": "transition",
    "TransitionStore": "data.store",
    "Guidance": "diffusion.guidance",
    "Prompt": "diffusion.conditioning",
    "collect": "online.collect",
    "collect_states": "online.collect_states",
    "compute_conditions": "synthesis.conditions",
    "decode": "synthesis.decoder",
    "download": "data.download",
    "encode_dataset": "synthesis.encode",
    "export_program": "agents.program",
    "fidelity": "synthesis.fidelity",
    "load_checkpoint": "stages.trainer.checkpoints",
    "load_vd4rl": "data.vd4rl",
    "load_states": "data.state_formats",
    "rollout": "evaluation.rollout",
    "DecoderData": "synthesis.decoder",
    "CustomEncoder": "networks.custom_encoder",
    "DenoisingStep": "diffusion.trajectory",
    "DiffusionSampler": "diffusion.samplers",
    "EnvConfig": "envs.config",
    "Episodes": "data.episodes",
    "Hdf5Writer": "data.writers",
    "StoreWriter": "data.store_writer",
    "Video": "evaluation.animation",
    "add_noise": "diffusion.trajectory",
    "decoded_figure": "synthesis.decoder",
    "denoising_steps": "diffusion.trajectory",
    "fidelity_figure": "synthesis.figures",
    "frames_figure": "data.pictures",
    "neighbour_figure": "synthesis.neighbours",
    "novelty_figure": "synthesis.figures",
    "run_episodes": "evaluation.episodes",
    "save_encoder": "networks.frozen",
    "train": "stages.standalone.train",
    "StateDataset": "data.state_dataset",
    "synthesize": "stages.standalone.synthesize",
    "write_condition": "data.conditions",
    "write_rows": "data.rows",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
