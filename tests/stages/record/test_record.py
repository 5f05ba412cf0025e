"""What a run directory remembers of its stages."""

import json

import pytest

from lightning_synther.errors import DataError
from lightning_synther.stages.record.ensure import ensure
from lightning_synther.stages.record.stage import Stage, flatten_inputs

INPUTS = {"model": {"width": 512, "betas": (0.9, 0.99)}, "dataset": "abc", "seed": 0}


def test_nested_inputs_become_dotted_keys():
    assert flatten_inputs(INPUTS) == {
        "model.width": 512,
        "model.betas": [0.9, 0.99],
        "dataset": "abc",
        "seed": 0,
    }


def test_status_follows_the_life_of_a_stage(tmp_path):
    stage = Stage(tmp_path, "diffusion", INPUTS)
    assert stage.status == "new"
    stage.begin()
    assert stage.status == "interrupted"
    stage.finish({"loss": 0.5})
    again = Stage(tmp_path, "diffusion", INPUTS)
    assert (again.status, again.results) == ("finished", {"loss": 0.5})


def test_a_changed_input_makes_the_stage_stale_and_is_named(tmp_path):
    stage = Stage(tmp_path, "diffusion", INPUTS)
    stage.begin()
    stage.finish({})
    changed = Stage(tmp_path, "diffusion", {**INPUTS, "model": {"width": 256, "betas": (0.9, 0.99)}})
    assert changed.status == "stale"
    assert changed.changes() == ["model.width: 512 -> 256"]
    assert changed.fingerprint != stage.fingerprint


def test_a_stage_is_extended_by_more_updates_alone_and_from_a_checkpoint(tmp_path):
    def stage(**inputs):
        return Stage(tmp_path, "agent", {"steps": 10, "seed": 0, **inputs}, length="steps")

    stage().begin()
    stage().finish({})
    assert stage(steps=20).status == "stale"
    (tmp_path / "agent" / "last.ckpt").touch()
    assert stage(steps=20).status == "extended"
    assert stage(steps=5).status == "stale"
    assert stage(steps=20, seed=1).status == "stale"
    assert Stage(tmp_path, "agent", {"steps": 20, "seed": 0}).status == "stale"


def test_ensure_builds_once_resumes_and_rebuilds(tmp_path):
    calls = []

    def build():
        calls.append(1)
        return {"answer": len(calls)}

    assert ensure(Stage(tmp_path, "encoder", {"a": 1}), build) == {"answer": 1}
    assert ensure(Stage(tmp_path, "encoder", {"a": 1}), build) == {"answer": 1}
    (tmp_path / "encoder" / "last.ckpt").write_text("old")
    assert ensure(Stage(tmp_path, "encoder", {"a": 2}), build) == {"answer": 2}
    assert not (tmp_path / "encoder" / "last.ckpt").exists()


def test_an_exception_leaves_the_stage_interrupted_with_its_checkpoint(tmp_path):
    stage = Stage(tmp_path, "encoder", {"a": 1})

    def fail():
        (stage.directory / "last.ckpt").write_text("weights")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        ensure(stage, fail)
    again = Stage(tmp_path, "encoder", {"a": 1})
    assert again.status == "interrupted"
    assert again.last_checkpoint is not None
    assert again.seconds > 0


def test_a_damaged_record_is_one_sentence(tmp_path):
    stage = Stage(tmp_path, "encoder", {"a": 1})
    stage.begin()
    (stage.directory / "stage.json").write_text("{")
    with pytest.raises(DataError, match=r"stage\.json is damaged .* delete its folder"):
        _ = stage.status


def test_records_are_json_whatever_the_inputs(tmp_path):
    stage = Stage(tmp_path, "encoder", {"betas": (1, 2), "nothing": None})
    stage.begin()
    assert json.loads((stage.directory / "stage.json").read_text())["inputs"] == {
        "betas": [1, 2],
        "nothing": None,
    }
