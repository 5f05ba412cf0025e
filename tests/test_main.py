"""The dispatcher in front of the commands, and the frame around them: sentences, statuses, light imports."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import subprocess
import sys
import time
import types

import pytest

import lightning_synther
from lightning_synther.__main__ import FUNCTIONS, SUMMARIES, call_function, main
from lightning_synther.command import MAX_SENTENCE, parse_error, run_command
from lightning_synther.errors import DataError

HEAVY = ("torch", "lightning", "dm_control", "mujoco", "matplotlib")


def raiser(error: BaseException):
    def function():
        raise error

    return function


def example(task: str, count: int = 1, verify: bool = False, sure: bool | None = None) -> None:
    """Do something.

    Args:
        task: what to do.
        count: how often.
        verify: look again.
        sure: or not.
    """
    raise DataError(f"{task} {count} {verify} {sure}")


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_names_every_subcommand_and_two_examples(argv, capsys):
    assert main(argv) == 0
    printed = capsys.readouterr().out
    for name, summary in SUMMARIES.items():
        assert f"  {name}" in printed
        assert summary in printed
    assert printed.count("  lightning-synther ") == 2


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lightning-synther {lightning_synther.__version__}\n"


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["typo"],
        *([name, "--help"] for name in ("collect", "convert", "download", "export-policy", "inspect")),
    ],
)
def test_small_commands_start_without_heavy_imports(argv):
    if argv[0] in FUNCTIONS:
        pytest.importorskip(FUNCTIONS[argv[0]][0])
    program = (
        "import sys; from lightning_synther.__main__ import main; status = main(sys.argv[1:]);"
        f"print('HEAVY', [name for name in {HEAVY} if name in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, timeout=60)
    assert done.returncode == (1 if argv == ["typo"] else 0), done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_a_spawned_worker_imports_only_the_standard_library():
    program = (
        "import sys; before = set(sys.modules); import lightning_synther.__main__;"
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    foreign = {name.split(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names)
    assert foreign == {"lightning_synther"}


def test_the_module_is_the_program():
    command = [sys.executable, "-m", "lightning_synther", "downlaod"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: unknown subcommand 'downlaod': there are fit, ")
    assert done.stderr.endswith("did you mean download?\n")
    assert done.stderr.count("\n") == 1


def test_an_option_before_the_subcommand_is_explained(capsys):
    assert main(["--config=x.yaml", "fit"]) == 1
    assert "write `lightning-synther fit --config=x.yaml" in capsys.readouterr().err


def test_stages_go_to_the_lightning_cli(monkeypatch):
    calls = []
    monkeypatch.setitem(sys.modules, "lightning_synther.cli", types.SimpleNamespace(main=calls.append))
    assert main(["fit", "--config", "x.yaml"]) == 0
    monkeypatch.setattr(sys, "argv", ["lightning-synther", "test"])
    assert main() == 0
    assert calls == [["fit", "--config", "x.yaml"], None]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: task (see `lightning-synther example --help`)"),
        (["--taks=x"], "unrecognized arguments: --taks=x; did you mean --task? (see"),
        (["--task=x", "--count=y"], "--count: expected int, got y (see"),
        (["--task=x", "--count=2", "--verify"], "x 2 True None"),
        (["--verify", "--task=x"], "x 1 True None"),
        (["--verify", "true", "--task=x"], "x 1 True None"),
        (["--verify=false", "--task=x"], "x 1 False None"),
        (["--task=x", "--sure", "--count=2"], "x 2 False True"),
    ],
)
def test_a_function_is_called_from_its_signature(argv, message, capsys):
    assert run_command(call_function, "example", example, argv) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_download_reports_in_one_sentence(capsys):
    assert main(["download", "--task=cheetah_run", "--policy=midium"]) == 1
    assert capsys.readouterr().err.endswith("did you mean medium?\n")


def test_run_command_passes_arguments_and_succeeds():
    seen = []
    assert run_command(lambda *args, **kwargs: seen.append((args, kwargs)), 1, b=2) == 0
    assert seen == [((1,), {"b": 2})]


def test_a_users_mistake_is_one_sentence(capsys, monkeypatch):
    monkeypatch.delenv("LIGHTNING_SYNTHER_TRACEBACK", raising=False)
    assert run_command(raiser(DataError("the file x is empty: remove it"))) == 1
    assert capsys.readouterr().err == "error: the file x is empty: remove it\n"


def test_the_traceback_of_a_mistake_can_be_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("LIGHTNING_SYNTHER_TRACEBACK", "1")
    assert run_command(raiser(DataError("wrong"))) == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.endswith("error: wrong\n")


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ValueError, match="ours"):
        run_command(raiser(ValueError("ours")))
    with pytest.raises(OSError, match="denied"):
        run_command(raiser(OSError(errno.EACCES, "denied")))


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (
            lambda folder: (folder / "file" / "x").write_text(""),
            "file/x (a part of it is a file, not a folder)",
        ),
        (lambda folder: (folder / "file").mkdir(exist_ok=True), "file (something else is there already)"),
        (lambda folder: folder.read_text(), "(it is a folder, not a file)"),
        (lambda folder: (folder / "file").replace(folder / "inside"), "inside (it is a folder, not a file)"),
        (
            lambda folder: raiser(PermissionError(errno.EACCES, "no", str(folder / "secret")))(),
            "secret (permission denied)",
        ),
    ],
)
def test_a_path_that_cannot_be_one_is_one_sentence(call, reason, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "inside").mkdir()
    assert run_command(call, tmp_path) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: cannot read or write {tmp_path}")
    assert said.endswith(f"{reason}: give another path\n")
    assert said.count("\n") == 1


def h5py_full() -> None:
    raise OSError(
        "Can't write data (file write failed: errno = 28, error message = 'No space left on device')"
    )


def torch_full() -> None:
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError as error:
        raise RuntimeError("PytorchStreamWriter failed writing file") from error


@pytest.mark.parametrize(
    "full",
    [
        raiser(OSError(errno.ENOSPC, "No space")),
        raiser(OSError(errno.EDQUOT, "quota")),
        h5py_full,
        torch_full,
    ],
)
def test_a_full_disk_is_one_sentence(full, capsys):
    assert run_command(full) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: the disk is full (")
    assert error.endswith("free some space and run the same command again\n")


def lightning_interrupt() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


@pytest.mark.parametrize("interrupted", [raiser(KeyboardInterrupt()), lightning_interrupt])
def test_ctrl_c_is_status_130_and_says_how_to_go_on(interrupted, capsys):
    assert run_command(interrupted) == 130
    assert capsys.readouterr().err == "\ninterrupted: run the same command again to continue\n"


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_ctrl_c_of_the_real_process():
    program = (
        "import sys, time; from lightning_synther.command import run_command;"
        "sys.exit(run_command(lambda: (print('ready', flush=True), time.sleep(60))))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in error


@pytest.mark.parametrize(("code", "status"), [(None, 0), (0, 0), (1, 1), (2, 1)])
def test_exit_statuses_are_0_or_1(code, status):
    assert run_command(raiser(SystemExit(code))) == status


def test_an_exit_with_a_sentence_prints_it(capsys):
    assert run_command(raiser(SystemExit("no config"))) == 1
    assert capsys.readouterr().err == "error: no config\n"


def test_parser_messages_become_one_bounded_line(capsys):
    error = argparse.ArgumentError(
        None, "Parser key \"model.lr\":\n  Expected a <class 'float'>. Got value: big"
    )
    assert parse_error(error) == "--model.lr: expected float, got big"
    assert run_command(raiser(error)) == 1
    assert capsys.readouterr().err == "error: --model.lr: expected float, got big\n"
    assert len(parse_error(argparse.ArgumentError(None, "x " * 5000))) <= MAX_SENTENCE + 2
