"""What steers and filters the samples is fingerprinted by its contents, not by its path."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_synther.data.rows import write_rows
from lightning_synther.errors import DataError
from lightning_synther.stages.config.synthesis import SynthesisConfig
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=3, action_dim=1, discount=0.99)


def test_another_policy_in_the_same_file_is_another_input_and_a_copy_of_it_is_not(tmp_path: Path) -> None:
    found = []
    for name, content in (("a", b"first"), ("a", b"second"), ("b", b"second")):
        (tmp_path / name).write_bytes(content)
        found.append(SynthesisConfig(policy_guidance=1.0, policy_checkpoint=str(tmp_path / name)).steering())
    assert found[0].keys() == {"policy_guidance", "policy_std", "policy_checkpoint"}
    assert found[0] != found[1]
    assert found[1] == found[2]


def test_other_rows_in_the_same_store_are_another_input_and_a_copy_of_them_is_not(tmp_path: Path) -> None:
    found = []
    for name, value in (("a", 0.0), ("a", 1.0), ("b", 1.0)):
        write_rows(tmp_path / name, torch.full((20, SPEC.dim), value), SPEC)
        config = SynthesisConfig(support_margin=0.0, support_store=str(tmp_path / name))
        found.append(config.filtering())
    assert found[0].keys() == {"support_margin", "support_store"}
    assert found[0] != found[1]
    assert found[1] == found[2]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"nowhere does not exist: give the path"):
        SynthesisConfig(policy_guidance=1.0, policy_checkpoint=nowhere).steering()
    with pytest.raises(DataError, match=r"nowhere"):
        SynthesisConfig(support_margin=0.0, support_store=nowhere).filtering()


def test_inputs_are_as_they_were_where_no_file_is_given() -> None:
    assert SynthesisConfig().steering() == SynthesisConfig().filtering() == {}
    assert SynthesisConfig(policy_guidance=2.0).steering() == {
        "policy_guidance": 2.0,
        "policy_std": 0.3,
        "policy_checkpoint": None,
    }
    filtering = SynthesisConfig(support_margin=0.0, drop_non_finite=True).filtering()
    assert filtering == {"drop_non_finite": True, "support_margin": 0.0}
