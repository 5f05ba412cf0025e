"""``precision: auto``: bf16 where the hardware multiplies it, float32 elsewhere."""

from __future__ import annotations

import platform

import torch

#: Instructions that multiply bf16 matrices: Intel's and AMD's AVX-512 and AMX, Arm's BF16 extension.
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def has_fast_bf16(accelerator: str = "auto") -> bool:
    """Whether bf16 is faster than float32 on the device that training will use."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine() == "arm64":  # Apple: no gain seen from torch's CPU kernels
        return False
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in BF16_INSTRUCTIONS)


def resolve_precision(precision: str | None, accelerator: str = "auto") -> str | None:
    """Lightning's name for ``precision``; ``auto`` is decided by the hardware."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if has_fast_bf16(accelerator) else "32-true"
