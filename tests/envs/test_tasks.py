"""Names, cameras and the OpenGL platform."""

import os
import subprocess
import sys

import pytest

from lightning_synther.envs.tasks import camera_id, parse_task
from lightning_synther.errors import ConfigError


@pytest.mark.parametrize(
    ("task", "parts"),
    [
        ("cheetah_run", ("cheetah", "run")),
        ("ball_in_cup_catch", ("ball_in_cup", "catch")),
        ("finger_turn_hard", ("finger", "turn_hard")),
        ("humanoid_CMU_run", ("humanoid_CMU", "run")),
    ],
)
def test_task_names_split_where_the_domain_ends(task, parts):
    assert parse_task(task) == parts


def test_unknown_task_names_the_nearest():
    with pytest.raises(ConfigError, match=r"no task 'cheeta_run': did you mean cheetah_run"):
        parse_task("cheeta_run")


def test_quadruped_has_its_own_camera():
    assert camera_id("quadruped") == 2
    assert camera_id("cheetah") == 0


def run_python(code, **env):
    keep = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "DISPLAY")}
    return subprocess.run(
        [sys.executable, "-c", code], env=keep | env, capture_output=True, text=True, check=False
    )


def test_missing_opengl_is_one_sentence():
    code = (
        "from lightning_synther.envs.tasks import parse_task\n"
        "from lightning_synther.errors import BackendError\n"
        "try: parse_task('cheetah_run')\n"
        "except BackendError as error: print(error)\n"
    )
    result = run_python(code, MUJOCO_GL="nonsense")
    assert "cannot render with MUJOCO_GL=nonsense" in result.stdout
    assert "apt-get install libegl1" in result.stdout
    assert result.stdout.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="EGL is Linux's")
def test_headless_default_is_egl_and_nothing_is_set_at_import():
    code = (
        "import os, lightning_synther.envs.pool as pool\n"
        "print(os.environ.get('MUJOCO_GL'))\n"
        "from lightning_synther.envs.tasks import use_headless_rendering\n"
        "use_headless_rendering(); print(os.environ.get('MUJOCO_GL'))\n"
    )
    assert run_python(code).stdout.split() == ["None", "egl"]
    assert run_python(code, MUJOCO_GL="osmesa").stdout.split() == ["osmesa", "osmesa"]


def test_environments_collection_and_rollout_start_without_torch():
    code = (
        "import sys\n"
        "import lightning_synther.envs.pool, lightning_synther.evaluation.rollout\n"
        "import lightning_synther.online.collect\n"
        "print('torch' in sys.modules, 'dm_control' in sys.modules)\n"
    )
    assert run_python(code).stdout.split() == ["False", "False"]


def test_torch_vision_may_be_imported_after_the_first_frame():
    """Triton's LLVM and Mesa's in one process: whoever renders first must not crash what is imported later."""
    code = (
        "import sys\n"
        "from lightning_synther.envs.control import ControlEnv\n"
        "from lightning_synther.envs.config import EnvConfig\n"
        "frame = ControlEnv(EnvConfig('cheetah_run')).reset(0)\n"
        "assert 'torch' not in sys.modules and frame.mean() > 10\n"
        "import torch, torchvision\n"
        "print('alive')\n"
    )
    done = run_python(code)
    assert done.stdout == "alive\n", (done.returncode, done.stderr)
