"""States are standardised by the published rule, and the statistics travel with the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_synther.errors import ConfigError
from lightning_synther.networks.normalizer import StateNormalizer


def test_the_published_rule() -> None:
    states = torch.tensor([[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]])
    normalizer = StateNormalizer(2)
    normalizer.fit(states.mean(0), states.std(0, correction=0))
    deviation = np.sqrt(8 / 3) + 1e-3
    expected = torch.tensor([[-2 / deviation, 0.0], [0.0, 0.0], [2 / deviation, 0.0]], dtype=torch.float32)
    torch.testing.assert_close(normalizer(states), expected)


def test_statistics_are_loaded_and_missed() -> None:
    fresh = StateNormalizer(2)
    with pytest.raises(ConfigError, match="has not seen its data"):
        fresh(torch.zeros(1, 2))
    fitted = StateNormalizer(2)
    fitted.fit(torch.ones(2), torch.ones(2))
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(fresh(torch.zeros(1, 2)), fitted(torch.zeros(1, 2)))
    assert not list(fresh.parameters()), "nothing of it is trained"
