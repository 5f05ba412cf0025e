"""Synthetic Experience Replay from pixels (Lu et al., NeurIPS 2023, arXiv 2303.06614), in PyTorch Lightning."""

__version__ = "0.1.0"
