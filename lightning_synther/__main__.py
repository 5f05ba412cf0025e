"""``python -m lightning_synther``: the dispatcher in front of the commands.

Only the standard library is imported here. ``--help``, `collect`, `convert`, `download` and `inspect` answer
without torch; and a spawned worker process, which imports this module again, pays nothing for it.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from collections.abc import Callable
from typing import Any

from lightning_synther import __version__
from lightning_synther.command import close_match, parse_error, run_command
from lightning_synther.errors import ConfigError

PROG = "lightning-synther"
STAGES = {
    "fit": "train the agent of a config, and whatever it still needs: encoder, diffusion, synthetic data",
    "validate": "score a checkpoint on validation episodes, to choose one by",
    "test": "score a checkpoint in dm_control",
    "predict": "sample synthetic transitions from a diffusion checkpoint into a store",
}
FUNCTIONS = {
    "collect": (
        "lightning_synther.online.collect",
        "render a dataset like V-D4RL here, with a behaviour policy",
    ),
    "collect-states": (
        "lightning_synther.online.collect_states",
        "play a behaviour policy on states, without rendering, into a store of transitions",
    ),
    "export-policy": (
        "lightning_synther.online.release",
        "make a behaviour policy for `collect` of an online run's checkpoint",
    ),
    "download": ("lightning_synther.data.download", "fetch and verify V-D4RL's own files"),
    "export": (
        "lightning_synther.stages.standalone.export",
        "write a checkpoint's policy as a file that needs torch alone",
    ),
    "convert": (
        "lightning_synther.data.minari",
        "turn a V-D4RL dataset into a Minari one, or Minari's or OGBench's images into V-D4RL's",
    ),
    "inspect": (
        "lightning_synther.data.inspection",
        "say what a dataset, a file or a store holds, and every fault in it",
    ),
    "fidelity": (
        "lightning_synther.synthesis.compare",
        "compare synthetic with real transitions, print and plot",
    ),
    "report": (
        "lightning_synther.stages.results.report",
        "aggregate finished runs by config and over seeds: table, intervals, plot",
    ),
}
POSITIONAL = {"convert", "inspect", "report"}  # whose required parameters are given without their names
SUMMARIES = STAGES | {name: summary for name, (_, summary) in FUNCTIONS.items()}


def main(argv: list[str] | None = None) -> int:
    """Run the subcommand that ``argv`` (default: the process's arguments) names; returns the exit status."""
    return run_command(dispatch, argv)


def dispatch(argv: list[str] | None) -> None:
    """Hand the arguments to their subcommand; raises `ConfigError` for one that does not exist."""
    words = sys.argv[1:] if argv is None else argv
    name = words[0] if words else "--help"
    if name in ("-h", "--help", "help"):
        print(overview())
    elif name in ("--version", "-V"):
        print(f"{PROG} {__version__}")
    elif name in STAGES:  # as given: a LightningCLI reads the command line itself, and warns of a copy
        importlib.import_module("lightning_synther.cli").main(argv)
    elif name in FUNCTIONS:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("lightning_synther").setLevel(logging.INFO)  # ours; dm_control has more to say
        module, _ = FUNCTIONS[name]
        function = getattr(importlib.import_module(module), name.replace("-", "_"))
        call_function(name, function, words[1:], positional=name in POSITIONAL)
    elif name.startswith("-"):
        raise ConfigError(f"{name} stands before the subcommand: write `{PROG} fit {name} …`")
    else:
        raise close_match(name, tuple(SUMMARIES), "subcommand")


def overview() -> str:
    """What ``--help`` prints: every subcommand in a line, and two examples."""
    width = max(map(len, SUMMARIES))
    commands = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in SUMMARIES.items())
    return f"""usage: {PROG} SUBCOMMAND [options]      (or: python -m lightning_synther SUBCOMMAND [options])

Synthetic Experience Replay from pixels: V-D4RL frames, latent diffusion, synthetic replay, agent.

subcommands:
{commands}

examples:
  {PROG} fit --config configs/vd4rl_cheetah.yaml --config configs/scale/quick.yaml
  {PROG} download --task=cheetah_run --policy=medium

`{PROG} SUBCOMMAND --help` lists a subcommand's options; --version prints the version."""


def call_function(
    name: str, function: Callable[..., object], argv: list[str], positional: bool = False
) -> None:
    """Parse ``argv`` by the signature of ``function``, then call it; a bare ``--flag`` means true."""
    from jsonargparse import ArgumentError, ArgumentParser

    parameters = inspect.signature(function).parameters
    description = (inspect.getdoc(function) or "").split("\n\n")[0]
    parser = ArgumentParser(prog=f"{PROG} {name}", description=description, exit_on_error=False)
    lists = [key for key, value in parameters.items() if positional and value.annotation == "list[str]"]
    for key in lists:  # words, as a shell's pattern gives them, not one list in brackets
        parser.add_argument(key, nargs="+", type=str, help="one or more")
    parser.add_function_arguments(function, as_group=False, as_positional=positional, skip=set(lists))
    try:
        settings: dict[str, Any] = parser.parse_args(_explicit_flags(argv, parameters)).as_dict()
    except ArgumentError as error:
        options = tuple(f"--{parameter}" for parameter in parameters)
        raise ConfigError(f"{parse_error(error, options)} (see `{PROG} {name} --help`)") from error
    function(**settings)


def _explicit_flags(argv: list[str], parameters: Any) -> list[str]:
    kinds = {f"--{name}": parameter.annotation for name, parameter in parameters.items()}
    flags = {option for option, kind in kinds.items() if kind is bool or str(kind).startswith("bool")}
    following = (*argv[1:], "--")
    return [
        f"{word}=true" if word in flags and after.startswith("--") else word
        for word, after in zip(argv, following, strict=False)
    ]


if __name__ == "__main__":
    sys.exit(main())
