"""The documentation keeps its promises: examples run, and every config is explained."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import pytest

from lightning_synther.__main__ import main
from lightning_synther.online.collect import collect
from tests.stages.tiny import fit

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r'^```python(?: title="([\w.]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)


def blocks(page: str, section: str) -> list[tuple[str, str]]:
    """(file name or "", code) of the examples of one section of ``page``."""
    text = (DOCS / page).read_text()
    part = re.split(r"^## ", text, flags=re.MULTILINE)
    (chosen,) = [p for p in part if p.startswith(section + "\n")]
    return [(match[1] or "", match[2]) for match in FENCE.finditer(chosen)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder where a reader follows the page; modules made there are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("my_agent", "my_encoder", "my_dataset"):
        sys.modules.pop(name, None)


def follow(section: str, folder: Path) -> None:
    """Do what a section of the page on extending says, top to bottom."""
    said = blocks("extending.md", section)
    assert said
    namespace: dict[str, object] = {}
    for name, code in said:
        if name:
            assert code.count("\n") < 40, f"{name} is long"
            (folder / name).write_text(code)
        else:
            exec(compile(code, f"extending.md, {section}", "exec"), namespace)


def test_a_new_agent(folder, caplog):
    follow("A new agent", folder)
    assert (folder / "my_agent.ckpt").exists()
    argv = ["fit", f"--config={ROOT / 'configs' / 'states.yaml'}", "--data.real=my_states"]
    argv += ["--model=my_agent.RewardWeightedBC", "--model.temperature=0.5", "--model.hidden_dim=16"]
    argv += [
        "--trainer.max_steps=20",
        "--trainer.accelerator=cpu",
        "--evaluation.episodes=1",
        "--run_dir=run",
    ]
    with caplog.at_level(logging.INFO, logger="lightning_synther"):
        assert main(argv) == 0
    assert any("agent: return" in message for message in caplog.messages)


def test_a_new_encoder(folder, capsys):
    follow("A new encoder", folder)
    assert "torch.Size([2, 1])" in capsys.readouterr().out
    collect("cartpole_swingup", root="data", episodes=6, image_size=64, num_workers=0, time_limit=0.5)
    short = [
        "--encoder.checkpoint=my_encoder.ckpt",
        "--data.dataset.time_limit=0.5",
        "--comparison.real_only=false",
        "--evaluation.episodes=1",
    ]
    summary = fit(folder / "tiny.yaml", folder / "data", folder / "run", *short)
    assert summary["episodes"] == 1


def test_a_new_dataset(folder, capsys):
    follow("A new dataset", folder)
    assert "torch.Size([4, 9, 84, 84])" in capsys.readouterr().out
    assert main(["inspect", "my_data/main/cheetah_run/my_pixels/84px"]) == 0
    assert "5" in capsys.readouterr().out


def test_every_config_is_explained():
    page = (DOCS / "configs.md").read_text()
    configs = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "configs").rglob("*.yaml"))]
    assert configs
    assert [path for path in configs if f"`{path}`" not in page] == []


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert [page for page in pages if page not in navigation] == []


@pytest.mark.parametrize("flag", ["devices", "num_nodes", "strategy", "accelerator"])
def test_scaling_out_names_settings_that_hold_for_every_stage(flag):
    from lightning_synther.stages.run import SHARED_TRAINER

    assert f"--trainer.{flag}" in (DOCS / "scaling.md").read_text()
    assert flag in SHARED_TRAINER
