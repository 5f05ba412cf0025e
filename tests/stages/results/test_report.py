"""`report`: groups by config, interquartile means with intervals, table, plots, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.stats import trim_mean

from lightning_synther.__main__ import main
from lightning_synther.stages.results.aggregate import interquartile_mean, stratified_interval
from lightning_synther.stages.results.report import table
from lightning_synther.stages.results.run_scores import (
    find_runs,
    group_runs,
    read_run,
    short_names,
)


def write_run(
    path: Path, seed: int, episodes: int | None = 20, task: str = "cheetah_run", **returns: float
) -> Path:
    """A finished run's two files; ``returns`` by arm."""
    path.mkdir(parents=True)
    config = {
        "seed_everything": seed,
        "run_dir": str(path),
        "data": {
            "init_args": {
                "seed": seed,
                "dataset": {"task": task, "num_episodes": episodes, "root": f"d{seed}"},
            }
        },
    }
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    arms: dict[str, Any] = {
        arm: {"return_mean": value, "normalized_score": value / 10} for arm, value in returns.items()
    }
    summary = {**arms.pop("agent"), "seed": seed, **arms}
    (path / "summary.json").write_text(json.dumps(summary))
    return path


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three numbers of episodes, four seeds each, two arms."""
    for episodes in (2, 5, 20):
        for seed in range(4):
            mean = 100.0 * episodes + seed
            write_run(
                tmp_path / f"{episodes}_{seed}",
                seed,
                episodes,
                agent=mean,
                real_only=mean - 50,
                synthetic_only=1.0,
            )
    return tmp_path


def groups_of(*paths: Path, metric: str = "return_mean") -> list[Any]:
    return group_runs([read_run(path, metric) for path in find_runs([str(path) for path in paths])])


def test_runs_group_by_what_is_not_a_seed_or_a_place(sweep: Path) -> None:
    groups = groups_of(sweep)
    assert [group.label for group in groups] == [
        {"data.init_args.dataset.num_episodes": n} for n in (2, 5, 20)
    ]
    assert [sorted(run.seed for run in group.runs) for group in groups] == [[0, 1, 2, 3]] * 3
    assert groups[0].scores("real_only")[0].tolist() == [150, 151, 152, 153]


def test_tasks_are_strata_not_groups(tmp_path: Path) -> None:
    for task, mean in (("cheetah_run", 400.0), ("walker_walk", 900.0)):
        for seed in range(3):
            write_run(tmp_path / f"{task}{seed}", seed, task=task, agent=mean + seed)
    (group,) = groups_of(tmp_path)
    assert [values.tolist() for values in group.scores("agent")] == [[400, 401, 402], [900, 901, 902]]
    low, high = stratified_interval(group.scores("agent"))
    assert 640 < low < high < 662, "each task keeps its three runs in every resample"
    assert "| 6 | 2 |" in table([group], "return_mean")


def test_any_seed_makes_another_run(tmp_path: Path) -> None:
    for number in range(2):
        path = write_run(tmp_path / str(number), 0, agent=float(number))
        config = yaml.safe_load((path / "config.yaml").read_text())
        config["data"]["init_args"]["fraction_seed"] = number
        (path / "config.yaml").write_text(yaml.safe_dump(config))
    (group,) = groups_of(tmp_path)
    assert group.scores("agent")[0].tolist() == [0, 1]


def test_names_of_settings_are_as_short_as_can_be_told_apart() -> None:
    keys = ["model.init_args.hidden_dim", "encoder.model.init_args.hidden_dim", "encoder.training.max_steps"]
    assert list(short_names(keys).values()) == ["model.hidden_dim", "encoder.model.hidden_dim", "max_steps"]


def test_known_interquartile_mean() -> None:
    assert interquartile_mean([np.array([0.0, 1, 2, 1000])]) == 1.5
    assert interquartile_mean([np.array([0.0, 1]), np.array([2.0, 1000])]) == 1.5
    assert interquartile_mean([np.array([7.0])]) == 7


@given(arrays(float, st.integers(2, 12), elements=st.floats(-1e3, 1e3)))
def test_the_interval_lies_within_the_scores_and_is_the_same_again(values: np.ndarray) -> None:
    low, high = stratified_interval([values], num_resamples=200)
    assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9
    assert (low, high) == stratified_interval([values], num_resamples=200)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth = trim_mean(rng.normal(size=1_000_000), 0.25)
    hits = 0
    for seed in range(200):
        low, high = stratified_interval([rng.normal(size=30)], num_resamples=500, seed=seed)
        hits += low <= truth <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_the_command_prints_a_table_and_writes_figures_and_a_plot(
    sweep: Path, tmp_path: Path, capsys: Any
) -> None:
    plot, output = tmp_path / "out" / "report.png", tmp_path / "report.json"
    words = ["report", *map(str, sorted(sweep.glob("*_*"))), f"--plot={plot}", f"--output={output}"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "| num_episodes=2 | agent | 201.5 | " in printed
    assert "| num_episodes=20 | real only | 1951.5 | " in printed
    rows = json.loads(output.read_text())["groups"]
    assert rows[1]["arms"]["synthetic_only"]["iqm"] == 1.0
    assert rows[1]["seeds"] == [0, 1, 2, 3]
    assert np.asarray(Image.open(plot).convert("L")).std() > 10, "not blank"


def test_two_configs_are_drawn_as_intervals(tmp_path: Path) -> None:
    for episodes in (2, 5):
        for seed in range(2):
            write_run(tmp_path / f"{episodes}_{seed}", seed, episodes, agent=float(seed), real_only=2.0)
    plot = tmp_path / "report.png"
    assert main(["report", str(tmp_path), f"--plot={plot}", "--metric=normalized_score"]) == 0
    assert np.asarray(Image.open(plot).convert("L")).std() > 10


def test_runs_without_scores_are_left_out(tmp_path: Path, capsys: Any, caplog: Any) -> None:
    write_run(tmp_path / "agent", 0, agent=3.0)
    alone = write_run(tmp_path / "diffusion", 0, agent=0.0)
    summary = {"seed": 0, "seconds": {"diffusion": 3.0}, "fidelity": None, "real_only": None}
    (alone / "summary.json").write_text(json.dumps(summary))
    with caplog.at_level("INFO", logger="lightning_synther"):
        assert main(["report", str(tmp_path)]) == 0
    assert "| all equal | agent | 3.0 | one run |" in capsys.readouterr().out
    assert caplog.messages == [f"{alone} is left out: it scored no agent"]
    assert main(["report", str(alone)]) == 1
    assert f"error: {alone}: no agent was scored there" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--metric=retrun"]) == 1
    assert "agent/summary.json has no retrun" in capsys.readouterr().err


def test_one_run_has_no_interval(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 0, agent=3.0)
    assert "| all equal | agent | 3.0 | one run | 3.0 | 3.0 … 3.0 | 1 | 1 |" in table(
        groups_of(tmp_path), "x"
    )


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: Any) -> None:
    run = write_run(tmp_path / "a", 0, agent=1.0)
    write_run(tmp_path / "b", 0, agent=2.0)
    (tmp_path / "empty").mkdir()
    for words, sentence in (
        ([str(tmp_path / "no")], "is not a folder"),
        ([str(tmp_path / "empty")], "holds no summary.json"),
        ([str(tmp_path)], "are the same run, all seeds of one config (seed_everything 0)"),
        ([str(run), "--metric=retrun"], "has no retrun: there are return_mean, normalized_score"),
        ([str(run), "--plot=figure.pdf"], "give the name of a .png file"),
    ):
        assert main(["report", *words]) == 1
        assert sentence in capsys.readouterr().err
    (run / "config.yaml").unlink()
    assert main(["report", str(run)]) == 1
    assert "run `fit` there again" in capsys.readouterr().err
