"""Our files in V-D4RL's original code, where a checkout of it is given by VD4RL_REPOSITORY."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_synther.online.collect import collect

REPOSITORY = os.environ.get("VD4RL_REPOSITORY", "")


@pytest.mark.skipif(
    not REPOSITORY,
    reason="set VD4RL_REPOSITORY to a checkout of github.com/conglu1997/v-d4rl to run its loaders",
)
def test_their_loaders_read_our_files_and_sample_what_ours_do(tmp_path):
    options = {
        "task": "cheetah_run",
        "policy": "medium",
        "episodes": 3,
        "time_limit": 0.4,
        "root": str(tmp_path),
    }
    folders = [collect(image_size=size, num_workers=0, progress=False, **options) for size in (84, 64)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.interop.compare_vd4rl", "--repository", REPOSITORY),
            *("--hdf5", str(folders[0]), "--npz", str(folders[1]), "--batches", "5"),
        ],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    equal = json.loads(done.stdout)["equal"]
    assert equal["84px, n-step 1"]["transitions"] == 3 * 20
    assert equal["84px, n-step 3"]["transitions"] == 3 * 18
    assert equal["64px"]["episodes"] == 3
