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


#: Largest error of a 256 x 256 x 256 product of standard normals that is still float32's: it is about 3e-5; bf16
#: operands make it about 0.2.
FLOAT32_ERROR = 1e-3


def use_fast_float32() -> bool:
    """Let oneDNN multiply float32 matrices on the CPU, about twice as fast, where the result stays float32.

    That is torch's precision "medium", under which oneDNN may round operands to bf16: it does with AMX, and
    does not without. So it is tried out, and left as it was where the error grows; also with a GPU, which
    would round, and where somebody has chosen a precision already.
    """
    if torch.cuda.is_available() or torch.get_float32_matmul_precision() != "highest":
        return False
    torch.set_float32_matmul_precision("medium")
    if matmul_error() < FLOAT32_ERROR:
        return True
    torch.set_float32_matmul_precision("highest")
    return False


def matmul_error() -> float:
    """Largest error of a float32 matrix product, as it is computed now."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 256, 256, generator=generator)
    return float(((a @ b).double() - a.double() @ b.double()).abs().max())
