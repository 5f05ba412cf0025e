"""Names of the dm_control suite's tasks, and the one door through which dm_control is imported.

dm_control chooses its OpenGL platform when it is imported and never again, so every module reaches it through
`load_suite`, which first decides on one.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import logging
import os
import sys
from types import ModuleType

from lightning_synther.envs.worker import in_worker
from lightning_synther.errors import BackendError, ConfigError

APT_PACKAGES = "libegl1 libgl1 libopengl0 libglx-mesa0"


def use_headless_rendering() -> None:
    """Render through EGL on a Linux machine without a display, unless ``MUJOCO_GL`` already says otherwise.

    Called before anything loads an OpenGL library.

    Mesa's software rasterizer draws one 84x84 image 8 % faster in the calling thread than through its thread
    pool, and the processes of a pool would fight over the cores (``LP_NUM_THREADS``; GPU drivers ignore it).
    """
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
    os.environ.setdefault("LP_NUM_THREADS", "0")
    if not in_worker():  # 90 MB that a renderer does not need
        _load_triton_first()


def _load_triton_first() -> None:
    """Load Triton's library before Mesa's, where torch has brought it.

    Both contain an LLVM, and Triton's (3.7) takes the symbols of one that is there already: an import of torchvision or
    `torch.compile` after the first rendered frame would end in a segmentation fault. In this order both work.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("triton._C.libtriton")


@functools.cache
def load_suite() -> ModuleType:
    """Import ``dm_control.suite``; `BackendError` where no OpenGL library answers."""
    use_headless_rendering()
    logging.getLogger("absl").addFilter(_is_news)
    try:
        from dm_control import suite
    except ModuleNotFoundError:
        raise
    except Exception as error:  # PyOpenGL fails with whatever its missing library leads to
        raise rendering_error(error) from error
    return suite


def _is_news(record: logging.LogRecord) -> bool:
    # dm_control's own models use an attribute that MuJoCo deprecates: nothing that a user could change.
    return "settotalmass" not in str(record.msg)


def rendering_error(error: BaseException) -> BackendError:
    """What to tell the user when OpenGL fails with ``error``."""
    sys.unraisablehook = _without_half_made_contexts
    backend = os.environ.get("MUJOCO_GL", "default")
    return BackendError(
        f"dm_control cannot render with MUJOCO_GL={backend} ({type(error).__name__}: {error}): "
        f"install the OpenGL libraries (apt-get install {APT_PACKAGES}) "
        f"or set MUJOCO_GL to egl, osmesa or glfw"
    )


def _without_half_made_contexts(unraisable: sys.UnraisableHookArgs) -> None:
    # dm_control's rendering context complains when it is deleted after its constructor failed.
    if "MjrContext" not in repr(unraisable.object):
        sys.__unraisablehook__(unraisable)


def parse_task(task: str) -> tuple[str, str]:
    """Split ``"ball_in_cup_catch"`` into (domain, task); `ConfigError` names the nearest known tasks."""
    if ":" in task:
        raise ConfigError(
            f"{task} is no dm_control task, and this works with dm_control's physics and cameras only: give a task "
            "as in cheetah_run"
        )
    known = {f"{domain}_{name}": (domain, name) for domain, name in load_suite().ALL_TASKS}
    if task not in known:
        near = difflib.get_close_matches(task, known, n=3, cutoff=0.5) or sorted(known)[:3]
        raise ConfigError(f"dm_control has no task {task!r}: did you mean {' or '.join(near)}?")
    return known[task]


def camera_id(domain: str) -> int:
    """Camera of the pixel benchmarks: 2 shows the quadruped from outside, all else has its own at 0."""
    return 2 if domain == "quadruped" else 0
