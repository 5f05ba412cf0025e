"""Golden case a8: V-D4RL's ring buffer of frames. Ours has no ring; it must gather the same transitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_synther.data.episodes import Episodes
from lightning_synther.data.recording import episode_lengths
from lightning_synther.data.replay import PixelReplay
from lightning_synther.transition import Transition

CASES = [f"a8_replay_{kind}_n{n}" for kind in ("plain", "ring", "exactfit") for n in (1, 3)]
FIELDS = {
    "observation": "obs",
    "action": "action",
    "reward": "reward",
    "next_observation": "next_obs",
    "discount": "discount",
}


def build(file) -> PixelReplay:
    episodes = Episodes(
        frames=file["in.data.observation"],
        action=file["in.data.action"],
        reward=file["in.data.reward"],
        discount=file["in.data.discount"],
        lengths=episode_lengths("a8", file["in.data.step_type"]),
    )
    assert episodes.lengths.tolist() == file.hp["episode_lengths"]
    return PixelReplay(
        episodes, frame_stack=file.hp["frame_stack"], n_step=file.hp["nstep"], gamma=file.hp["discount"]
    )


def slot_transitions(file, replay: PixelReplay) -> dict[int, int]:
    """Slot of the published ring -> our transition, by replaying its filling rules."""
    size, stack, n_step = file.hp["buffer_size"], file.hp["frame_stack"], file.hp["nstep"]
    number = {int(row): i for i, row in enumerate(replay.rows)}
    valid: dict[int, int] = {}
    slot_rows: dict[int, int] = {}
    pointer = since_first = 0
    for row, step_type in enumerate(file["in.data.step_type"]):
        if step_type == 0:
            for k in range(2 * stack + 1):
                valid.pop((pointer + k) % size, None)
            pointer, since_first = (pointer + stack) % size, 1
            continue
        slot_rows[pointer] = row
        valid.pop((pointer + stack) % size, None)
        if since_first >= n_step:
            start = (pointer - n_step + 1) % size
            valid[start] = number[slot_rows[start]]
        pointer, since_first = (pointer + 1) % size, since_first + 1
    return valid


def assert_equal(found: Transition, file, prefix: str) -> None:
    for field, key in FIELDS.items():
        wanted = torch.from_numpy(file[f"out.{prefix}.{key}"])
        got = getattr(found, field)
        assert got.shape == wanted.shape, field
        torch.testing.assert_close(got, wanted.to(got.dtype), rtol=1e-6, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_gathers_what_the_published_buffer_gathers(golden, case):
    file = golden(case)
    replay = build(file)
    slots = slot_transitions(file, replay)
    assert sorted(slots) == sorted(file["in.gather.indices"].tolist())
    for prefix, indices in (("gather", "in.gather.indices"), ("sample", "rand.sample.indices")):
        index = [slots[slot] for slot in file[indices].tolist()]
        assert_equal(replay.gather(index), file, prefix)


@pytest.mark.parametrize("case", [case for case in CASES if "ring" not in case])
def test_has_exactly_the_published_transitions(golden, case):
    file = golden(case)
    replay = build(file)
    assert replay.num_transitions == int(file["out.valid"].sum()) == len(file["in.gather.indices"])
    assert_equal(replay.gather(np.arange(replay.num_transitions)), file, "gather")
