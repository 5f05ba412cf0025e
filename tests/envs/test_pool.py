"""Environments in processes: the same results, clear failures, nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lightning_synther.envs.control import ControlEnv, EnvConfig
from lightning_synther.envs.pool import EnvPool
from lightning_synther.envs.worker import WorkerProcess, start_workers, wait_for_any
from lightning_synther.errors import BackendError, ConfigError

STATES = EnvConfig("cartpole_swingup", observation="states", time_limit=0.2)
PIXELS = EnvConfig("cartpole_swingup", image_size=16, time_limit=0.1)


class Host:
    """What the workers of these tests serve."""

    def __init__(self, fail=None):
        if fail:
            raise fail

    def add(self, a, b):
        return a + b

    def modules(self):
        return sorted(sys.modules)

    def fail(self, error):
        raise error

    def die(self, number):
        os.kill(os.getpid(), number)

    def nap(self, seconds):
        time.sleep(seconds)
        return seconds

    def close(self):
        pass


def process_ended(pid):
    status = Path(f"/proc/{pid}/status")
    for _ in range(100):
        if not status.exists() or "State:\tZ" in status.read_text():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("config", [STATES, PIXELS])
@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_pool_equals_single_environments(config, num_workers):
    rng = np.random.default_rng(0)
    singles = [ControlEnv(config) for _ in range(3)]
    with EnvPool(config, 3, num_workers) as pool:
        first = pool.reset([7, 8, 9])
        np.testing.assert_array_equal(
            first, [env.reset(s) for env, s in zip(singles, (7, 8, 9), strict=True)]
        )
        assert pool.observation_shape == first.shape[1:]
        for active in ([0, 1, 2], [2, 0], [1]):
            actions = rng.uniform(-1, 1, (len(active), pool.action_dim))
            got = pool.step(actions, active)
            wanted = [singles[i].step(action) for i, action in zip(active, actions, strict=True)]
            np.testing.assert_array_equal(got.observation, [result.observation for result in wanted])
            np.testing.assert_array_equal(got.reward, np.float32([result.reward for result in wanted]))
            assert got.last.tolist() == [result.last for result in wanted]
        image = pool.render(20, [1])
        np.testing.assert_array_equal(image, [singles[1].render(20)])


def test_pool_refuses_rows_that_do_not_fit():
    with EnvPool(STATES, 2, 0) as pool:
        with pytest.raises(ConfigError, match="1 rows were given for 2 environments"):
            pool.reset([1])
        with pytest.raises(ConfigError, match="3 rows were given for 1 environments"):
            pool.step(np.zeros((3, 1)), active=[0])
    with pytest.raises(ConfigError, match="a pool of 0 environments"):
        EnvPool(STATES, 0)


def test_a_mistake_in_a_worker_is_the_parents_exception():
    with pytest.raises(ConfigError, match="no task 'cheetah_fly'"):
        EnvPool(EnvConfig("cheetah_fly"), 2, 2)
    with EnvPool(STATES, 2, 1) as pool:
        pool.reset([0, 1])
        with pytest.raises(ConfigError, match=r"takes actions of shape \(1,\), got \(4,\)"):
            pool.step(np.zeros((2, 4)))


def test_any_other_exception_in_a_worker_is_one_sentence_with_its_traceback_as_a_note():
    worker = WorkerProcess(Host)
    worker.send("fail", RuntimeError("physics diverged"))
    with pytest.raises(
        BackendError, match=r"^a worker process failed with RuntimeError: physics diverged"
    ) as info:
        worker.receive()
    assert "\n" not in str(info.value)
    assert "in fail" in info.value.__notes__[0]
    worker.send("add", 1, 2)
    assert worker.receive() == 3, "the worker serves on"
    worker.close()


def test_a_failing_constructor_is_reported_at_the_first_call():
    worker = WorkerProcess(Host, ConfigError("no such thing"))
    worker.send("add", 1, 2)
    with pytest.raises(ConfigError, match="no such thing"):
        worker.receive()
    worker.close()


def test_a_killed_worker_is_one_sentence():
    worker = WorkerProcess(Host)
    worker.send("die", signal.SIGKILL)
    with pytest.raises(BackendError, match="was killed by signal 9"):
        worker.receive()
    with pytest.raises(BackendError, match="was killed by signal 9"):
        worker.send("add", 1, 2)
    worker.close()


def test_workers_do_not_load_torch():
    worker = WorkerProcess(Host)
    worker.send("modules")
    modules = worker.receive()
    worker.close()
    assert "torch" not in modules


def test_a_script_needs_no_main_guard(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "print('started')\n"
        "from lightning_synther.envs.worker import WorkerProcess\n"
        "worker = WorkerProcess(dict)\n"
        "worker.send('get', 'key', 'served')\n"
        "print(worker.receive())\n"
        "worker.close()\n"
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["started", "served"], result.stderr


def test_wait_for_any_returns_those_that_are_done():
    slow, quick = start_workers(2, Host)
    slow.send("nap", 30)
    quick.send("nap", 0)
    assert wait_for_any([slow, quick]) == [quick]
    started = time.time()
    slow.close()
    quick.close()
    assert time.time() - started < 10, "a busy worker does not hold up the end"


PARENT = """
import sys, time
from lightning_synther.envs.control import EnvConfig
from lightning_synther.envs.pool import EnvPool
with EnvPool(EnvConfig("cartpole_swingup", observation="states"), 2, 2) as pool:
    pool.reset([0, 1])
    print(*[worker._process.pid for worker in pool._workers], flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_process_survives_the_parent(number):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    workers = parent.stdout.readline().split()
    assert len(workers) == 2
    parent.send_signal(number)
    parent.wait(timeout=10)
    parent.stdout.close()
    assert all(process_ended(pid) for pid in workers)
