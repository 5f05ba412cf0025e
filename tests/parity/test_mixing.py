"""Golden case d1: how SynthER's online agent composes a batch of real and synthetic transitions."""

import numpy as np

from lightning_synther.data.mixing import composition


def test_composition_of_a_batch(golden):
    file = golden("d1_batch_mixing")
    assert file.hp["cases"]
    for case in file.hp["cases"]:
        out, draws = f"out.{case['name']}.", f"rand.{case['name']}.draw"
        num_real, num_synthetic = composition(
            0, case["batch_size"], "ratio", case["ratio"], num_stored=case["synthetic_in_buffer"]
        )
        assert num_synthetic == file[out + "n_synthetic"]
        assert num_real == file[out + "n_real"]

        # Real rows first, then synthetic ones, each taken where its draw says.
        if case["synthetic_in_buffer"] < int(case["batch_size"] * case["ratio"]):
            real_index, synthetic_index = file[draws + "0"], np.zeros(0, np.int64)
        else:
            synthetic_index, real_index = file[draws + "0"], file[draws + "1"]
        assert (len(real_index), len(synthetic_index)) == (num_real, num_synthetic)
        rewards = np.concatenate([real_index, 1000 + synthetic_index])[:, None]
        np.testing.assert_array_equal(rewards, file[out + "reward"])
        np.testing.assert_array_equal(
            np.arange(num_real + num_synthetic) >= num_real, file[out + "is_synthetic_row"]
        )
