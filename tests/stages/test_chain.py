"""``fit``: what it makes, what it reuses, what it rebuilds, and that it says so."""

from __future__ import annotations

import json

import pytest
import torch

from lightning_synther.__main__ import main
from lightning_synther.data.store import TransitionStore
from lightning_synther.stages.trainer.checkpoints import load_checkpoint
from tests.stages.tiny import STAGES, arguments, fit, reused, said_by_stages


@pytest.fixture
def refit(root, run, tmp_path, caplog):
    """Run ``fit`` on the copied run; what each stage said, by its name."""

    def call(*more: str) -> dict[str, str]:
        return said_by_stages(caplog, STAGES, lambda: fit(tmp_path / "tiny.yaml", root, run, *more))

    return call


def test_a_run_leaves_every_stage_and_a_summary(finished_run):
    summary = json.loads((finished_run / "summary.json").read_text())
    for scores in (summary, summary["real_only"]):
        assert {"return_mean", "return_stderr", "normalized_score"} <= set(scores)
        assert scores["episodes"] == len(scores["returns"]) == 2
    assert summary["normalized_score"] == pytest.approx(summary["return_mean"] / 10)
    assert summary["data_source"] == "collected"
    assert summary["seed"] == 0
    assert set(summary["seconds"]) == set(STAGES)
    assert {"torch", "lightning", "dm-control", "mujoco"} <= set(summary["versions"])
    for score in ("ks_mean", "ks_mean_floor", "correlation_error"):
        assert 0 <= summary["fidelity"][score] <= 1
    assert summary["fidelity"]["compared_with"] == "heldout"
    assert len(TransitionStore.open(finished_run / "synthesis" / "store")) == 100
    assert {path.name for path in finished_run.iterdir()} == {
        *STAGES,
        "tensorboard",
        "config.yaml",
        "command.txt",
        "summary.json",
    }


def test_the_agent_needs_neither_dataset_nor_encoder_file(finished_run):
    agent = load_checkpoint(finished_run / "agent" / "final.ckpt")
    assert agent.env["task"] == "cartpole_swingup"
    frames = torch.randint(0, 256, (2, 9, 64, 64), dtype=torch.uint8)
    assert agent.policy(frames).shape == (2, 1)
    assert load_checkpoint(finished_run / "agent" / "last.ckpt").num_updates == 12


def test_a_second_run_reuses_everything(refit, run):
    before = {path: path.read_bytes() for path in run.glob("*/final.ckpt")}
    assert reused(refit()) == list(STAGES)
    assert before == {path: path.read_bytes() for path in run.glob("*/final.ckpt")}


@pytest.mark.parametrize(
    ("change", "first", "why"),
    [
        ("--encoder.training.batch_size=4", "encoder", "training.batch_size: 8 -> 4"),
        ("--trainer.precision=bf16-mixed", "encoder", "training.precision: None -> bf16-mixed"),
        ("--diffusion.model.width=24", "diffusion", "model.width: 16 -> 24"),
        ("--synthesis.num_transitions=60", "synthesis", "num_transitions: 100 -> 60"),
        ("--data.ratio=0.25", "agent", "data.ratio: 0.5 -> 0.25"),
    ],
)
def test_a_changed_setting_rebuilds_what_comes_after(refit, change, first, why):
    said = refit(change, "--comparison.real_only=false")
    assert reused(said) == list(STAGES[: STAGES.index(first)])
    assert said[first] == f"rebuilt, because these changed: {why}"


def test_the_number_of_episodes_only_evaluates_again(refit, run):
    said = refit("--evaluation.episodes=1")
    assert [name for name in STAGES if name not in reused(said)] == ["evaluation", "evaluation_real_only"]
    assert said["evaluation"] == "rebuilt, because these changed: episodes: 2 -> 1"
    assert json.loads((run / "summary.json").read_text())["episodes"] == 1


@pytest.mark.parametrize(
    "change", ["--checkpoint_every=2", "--diffusion.training.checkpoint_every=2", "--data.updates_per_step=4"]
)
def test_settings_that_do_not_change_the_result_rebuild_nothing(refit, change):
    assert reused(refit(change)) == list(STAGES)


def test_a_longer_training_goes_on_and_is_as_if_it_had_always_been_longer(refit, run, root, tmp_path):
    said = refit("--trainer.max_steps=20", "--comparison.real_only=false")
    assert said["agent"] == "goes on, because it is longer now: max_steps: 12 -> 20"
    assert said["evaluation"].startswith("rebuilt")
    (run / "agent").rename(tmp_path / "extended")
    refit("--trainer.max_steps=20", "--comparison.real_only=false")
    first, second = (
        torch.load(folder / "final.ckpt", weights_only=True)["state_dict"]
        for folder in (tmp_path / "extended", run / "agent")
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert refit("--comparison.real_only=false")["agent"].startswith(
        "rebuilt, because these changed: max_steps"
    )


def test_a_dataset_that_has_gone_is_noticed(root, run, tmp_path, capsys):
    moved = root / "main" / "moved"
    (root / "main" / "cartpole_swingup").rename(moved)
    try:
        assert main(arguments(tmp_path / "c.yaml", root, run, "--data.dataset.source=local")) == 1
        assert "holds no dataset" in capsys.readouterr().err
    finally:
        moved.rename(root / "main" / "cartpole_swingup")


def test_the_same_seed_gives_the_same_run_and_no_bars_in_a_file(finished_run, root, tmp_path, capfd):
    fit(tmp_path / "tiny.yaml", root, tmp_path / "run", "--comparison.real_only=false")
    assert "\r" not in capfd.readouterr().err
    for stage in ("encoder", "diffusion", "agent"):
        first, second = (
            torch.load(folder / stage / "final.ckpt", weights_only=True)["state_dict"]
            for folder in (finished_run, tmp_path / "run")
        )
        assert all(torch.equal(first[key], second[key]) for key in first), stage


def test_another_algorithm_trains_on_the_finished_stages(refit, run):
    said = refit("--model=EDAC", "--comparison.real_only=false")
    assert reused(said) == ["dataset", "encoder", "latents", "diffusion", "synthesis"]
    assert said["agent"].startswith("rebuilt, because these changed: model.")
    assert type(load_checkpoint(run / "agent" / "final.ckpt")).__name__ == "EDAC"


def test_fidelity_is_in_the_summary(finished_run):
    fidelity = json.loads((finished_run / "summary.json").read_text())["fidelity"]
    assert {"memorised", "out_of_range", "nearest_floor"} <= set(fidelity)
    assert fidelity["counts"]["synthetic"] > 0


def test_filters_and_a_decoder_on_request(root, run, tmp_path, refit, finished_run):
    said = refit("--decoder.max_steps=4", "--decoder.width=8", "--comparison.real_only=false")
    assert said["synthesis"] == "finished earlier, reused"  # nothing depends on the decoder
    assert (run / "decoder" / "final.ckpt").exists()
    said = refit("--synthesis.support_margin=5", "--comparison.real_only=false")
    assert "rebuilt, because these changed: support_margin: unset -> 5.0" in said["synthesis"]
    counts = json.loads((run / "summary.json").read_text())["filtered"]
    store = TransitionStore.open(run / "synthesis" / "store")
    assert counts == store.metadata.extra["counts"]
    assert counts["sampled"] >= len(store) + counts["out_of_range"]
    assert json.loads((finished_run / "summary.json").read_text())["filtered"] is None
