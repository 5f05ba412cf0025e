"""Fast float32 products stay float32, or are not used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lightning_synther.stages.trainer import precision


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def test_products_stay_float32() -> None:
    precision.use_fast_float32()
    assert precision.matmul_error() < 1e-4
    for rows, inner, columns in ((256, 23, 256), (64, 2000, 50), (512, 512, 1)):
        a, b = torch.randn(rows, inner), torch.randn(inner, columns)
        torch.testing.assert_close(a @ b, (a.double() @ b.double()).float(), rtol=1e-4, atol=1e-4)


def test_rounded_operands_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "matmul_error", lambda: 0.2)
    assert not precision.use_fast_float32()
    assert torch.get_float32_matmul_precision() == "highest"


def test_somebodys_choice_is_left_alone() -> None:
    torch.set_float32_matmul_precision("high")
    assert not precision.use_fast_float32()
    assert torch.get_float32_matmul_precision() == "high"
