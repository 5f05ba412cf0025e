"""One interface for every kind of observation: acting, loading without simulator, export without package."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_synther.__main__ import main
from lightning_synther.agents import BC, CQLSAC, EDAC, IQL, SAC, TD3BC, Agent, DrQV2
from lightning_synther.agents.program import export_program
from lightning_synther.errors import ConfigError, DataError
from tests.agents.tiny import ACTION_DIM, SIZES, make, make_batch, trainer

STATES = {**SIZES, "observation": "states", "observation_dim": 5}
#: Agents for every kind of observation and of actor.
KINDS: dict[str, tuple[type[Agent], dict[str, Any]]] = {
    "pixels": (DrQV2, {}),
    "pixels_gaussian": (SAC, {"observation": "pixels"}),
    "latents": (DrQV2, {"observation": "latents"}),
    "latents_bc": (BC, {"observation": "latents"}),
    "states": (TD3BC, STATES),
    "states_normalized": (IQL, {**STATES, "normalize_states": True}),
    "states_residual": (EDAC, {**STATES, "residual": True, "num_critics": 3}),
    "states_scaled": (CQLSAC, {**STATES, "max_action": 2.0, "normalize_states": True}),
}


def save(agent: Agent, path: Path) -> Path:
    """A checkpoint as the stages write it."""
    run = trainer(1)
    run.strategy.connect(agent)
    run.save_checkpoint(path, weights_only=True)
    content = torch.load(path, weights_only=True)
    cls = type(agent)
    torch.save({**content, "class_path": f"{cls.__module__}.{cls.__qualname__}"}, path)
    return path


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Agent]:
    folder, built = tmp_path_factory.mktemp("stage1"), {}
    for name, (cls, settings) in KINDS.items():
        torch.manual_seed(len(built))
        if settings.get("observation") == "latents":
            encoder = save(make(cls), folder / f"{cls.__name__}.ckpt")
            built[name] = cls(hidden_dim=16, encoder_checkpoint=str(encoder), **settings)
        elif settings.get("observation") == "states":
            built[name] = cls(**settings)
        else:
            built[name] = make(cls, **settings)
        if settings.get("normalize_states"):
            built[name].fit_normalizer(3 * torch.randn(50, 5) + 1)
    return built


def observe(name: str, batch_size: int) -> torch.Tensor:
    """Frames for pixels and latents, else states."""
    if name.startswith("states"):
        return make_batch(1, batch_size, shape=(5,)).observation
    return make_batch(1, batch_size).observation


@pytest.mark.parametrize("name", KINDS)
def test_a_batch_is_its_observations(agents: dict[str, Agent], name: str) -> None:
    agent, observation = agents[name], observe(name, 3)
    action = agent.policy(observation)
    assert action.shape == (3, ACTION_DIM)
    assert torch.equal(agent(observation), action)
    assert not action.requires_grad
    for single, expected in zip(observation, action, strict=True):
        torch.testing.assert_close(agent.policy(single), expected, rtol=1e-4, atol=1e-5)
    if name.startswith("states"):
        torch.testing.assert_close(agent.policy(observation.double()), action)


@pytest.mark.parametrize("name", KINDS)
def test_observations_of_another_size_are_refused(agents: dict[str, Agent], name: str) -> None:
    wrong = torch.zeros(2, 6) if name.startswith("states") else torch.zeros(2, 9, 22, 21, dtype=torch.uint8)
    with pytest.raises(DataError, match=r"the agent was made for|the encoder was trained on"):
        agents[name].policy(wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", KINDS)
def test_any_device(agents: dict[str, Agent], name: str) -> None:
    expected = agents[name].policy(observe(name, 3))
    action = agents[name].to("cuda").policy(observe(name, 3))
    agents[name].to("cpu")
    assert action.device.type == "cuda"
    torch.testing.assert_close(action.cpu(), expected, rtol=1e-3, atol=1e-3)


def run_without(blocked: tuple[str, ...], program: str, *args: Any) -> None:
    """Run ``program`` in a fresh process that cannot import ``blocked``."""
    guard = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {blocked!r}: raise ImportError('blocked: ' + name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    command = [sys.executable, "-c", guard + program, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


LOAD = """
import importlib, torch
from pathlib import Path
folder = Path(sys.argv[1])
for path in sorted(folder.glob("*.ckpt")):
    content = torch.load(path, weights_only=True)
    module, _, name = content["class_path"].rpartition(".")
    agent = getattr(importlib.import_module(module), name).load_from_checkpoint(path)
    observation, action = torch.load(path.with_suffix(".pt"))
    assert torch.equal(agent.policy(observation), action), path
"""

CALL = """
import torch
from pathlib import Path
for path in sorted(Path(sys.argv[1]).glob("*.pt2")):
    policy = torch.export.load(path).module()
    for observation, action in torch.load(path.with_suffix(".pt")):
        torch.testing.assert_close(policy(observation), action, rtol=1e-5, atol=1e-6)
assert not any(name.startswith("lightning") for name in sys.modules)
"""


def test_a_checkpoint_loads_without_dataset_and_simulator(agents: dict[str, Agent], tmp_path: Path) -> None:
    for name, agent in agents.items():
        save(agent, tmp_path / f"{name}.ckpt")
        observation = observe(name, 2)
        torch.save((observation, agent.policy(observation)), tmp_path / f"{name}.pt")
    run_without(("dm_control", "mujoco", "h5py"), LOAD, tmp_path)


def test_a_program_acts_without_this_package(agents: dict[str, Agent], tmp_path: Path) -> None:
    for name, agent in agents.items():
        export_program(agent, tmp_path / f"{name}.pt2")
        pairs = [
            (observation, agent.policy(observation)) for observation in map(observe, [name] * 3, (1, 2, 7))
        ]
        torch.save(pairs, tmp_path / f"{name}.pt")
    run_without(("lightning_synther", "lightning", "dm_control"), CALL, tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".pt"] * len(KINDS) + [".pt2"] * len(KINDS)


def test_the_subcommand(agents: dict[str, Agent], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save(agents["latents"], tmp_path / "agent.ckpt")
    path = tmp_path / "deep" / "policy.pt2"
    assert main(["export", f"--ckpt_path={checkpoint}", f"--path={path}"]) == 0
    frames = observe("latents", 4)
    action = torch.export.load(path).module()(frames)
    torch.testing.assert_close(action, agents["latents"].policy(frames))
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("policy.json"))
        said = json.loads(archive.read(name))
    assert (said["observation"], said["shape"], said["dtype"]) == ("frames", [9, 21, 21], "uint8")
    capsys.readouterr()
    assert main(["export", f"--ckpt_path={tmp_path / 'none.ckpt'}"]) == 1
    assert "none.ckpt does not exist" in capsys.readouterr().err


def test_what_cannot_be_exported(agents: dict[str, Agent], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.pt2"):
        export_program(agents["states"], tmp_path / "policy.onnx")
    with pytest.raises(ConfigError, match="has not seen its data"):
        export_program(IQL(**STATES, normalize_states=True), tmp_path / "policy.pt2")
    assert not list(tmp_path.iterdir())
