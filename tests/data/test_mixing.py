import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_synther.data.mixing import composition, sources
from lightning_synther.errors import ConfigError

updates = st.integers(0, 10**7)
batch_sizes = st.integers(1, 4096)
ratios = st.floats(0, 1)


@given(updates, batch_sizes, ratios, st.sampled_from(["alternate", "ratio", "real", "synthetic"]))
def test_a_batch_is_always_full_and_comes_from_its_sources(update, batch_size, ratio, mixing):
    num_real, num_synthetic = composition(update, batch_size, mixing, ratio)
    needs_real, needs_synthetic = sources(mixing, ratio)
    assert num_real + num_synthetic == batch_size
    assert num_real >= 0
    assert num_synthetic >= 0
    assert needs_real or num_real == 0
    assert needs_synthetic or num_synthetic == 0


@given(updates, batch_sizes)
def test_alternate_gives_even_updates_to_real_transitions(update, batch_size):
    expected = (0, batch_size) if update % 2 else (batch_size, 0)
    assert composition(update, batch_size, "alternate") == expected


@given(updates, batch_sizes, ratios)
def test_the_ratio_is_that_of_the_synthetic_part_truncated(update, batch_size, ratio):
    assert composition(update, batch_size, "ratio", ratio)[1] == int(batch_size * ratio)


def test_only_one_kind():
    assert composition(1, 256, "real") == (256, 0)
    assert composition(0, 256, "synthetic") == (0, 256)
    assert sources("alternate") == (True, True)
    assert sources("ratio", 0.0) == (True, False)


@pytest.mark.parametrize("ratio", [-0.1, 1.5, float("nan")])
def test_a_ratio_outside_0_to_1(ratio):
    with pytest.raises(
        ConfigError, match=r"data.ratio is .*: give the synthetic share of a batch, from 0 to 1"
    ):
        composition(0, 256, "ratio", ratio)


def test_an_unknown_mixing():
    with pytest.raises(
        ConfigError, match=r"data.mixing is 'half': give one of alternate, ratio, real, synthetic"
    ):
        composition(0, 256, "half")
