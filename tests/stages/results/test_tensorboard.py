"""TensorBoard, read back: every documented tag is written, every written one documented, and its tabs load."""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from google.protobuf import text_format
from tensorboard import default, program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from lightning_synther import agents
from lightning_synther.agents.sac_module import SAC
from lightning_synther.data.store import TransitionStore
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.stages.real.source import RealTransitions
from lightning_synther.stages.record.stage import Stage
from lightning_synther.stages.synthetic.judge import judge
from lightning_synther.stages.trainer.training import TrainerFactory
from lightning_synther.transition import TransitionSpec
from tests.agents.tiny import ACTION_DIM, loader, trainer
from tests.stages.synthetic.online_tiny import arguments as online_arguments
from tests.stages.tiny import CONFIGS, fit, main

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
PLACEHOLDERS = {
    "agent": "(encoder|agent)",
    "stage": "(encoder|diffusion|decoder|agent)",
    "made": "(diffusion|synthesis)",
    "eval": "(eval|test)",
    "k": r"\d+",
    "sigma": r"[\d.e+-]+",
    "field": "(observation|action|reward|next_observation|terminal)",
    "versus": "(_floor|_train|)",
    "floor": "(_floor|)",
    "score": "[a-z_0-9]+",
    "arm": "(real_only|synthetic_only)",
    "any": "[a-z_]+",
}


def documented() -> dict[str, re.Pattern[str]]:
    """The tags in the tables of docs/metrics.md, and what they match."""
    tags = re.findall(r"^\| `([^`]+)` \|", DOCS.read_text(), flags=re.MULTILINE)
    assert len(set(tags)) == len(tags) > 50
    return {tag: re.compile(re.sub(r"\{(\w+)\}", lambda m: PLACEHOLDERS[m[1]], tag)) for tag in tags}


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def tags_of(folder: Path) -> set[str]:
    """Tags of the event files in a folder, of all kinds but the hyperparameters."""
    found = read(folder).Tags()
    tags = {tag for kind in ("scalars", "images", "histograms", "tensors") for tag in found[kind]}
    return {tag.removesuffix("/text_summary") for tag in tags if not tag.startswith("_hparams_")}


@pytest.fixture(scope="module")
def everything(root, tmp_path_factory) -> Path:
    """A run with everything that a pixel run can show."""
    folder = tmp_path_factory.mktemp("everything")
    shown = ["--decoder.max_steps=50", "--decoder.width=8", "--trainer.val_check_interval=3"]
    fit(folder / "tiny.yaml", root, folder / "run", *shown)
    return folder / "run"


@pytest.fixture(scope="module")
def online(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("online")
    short = ["--data.env.task=cartpole_balance", "--data.env.time_limit=0.2", "--data.start_steps=300"]
    sizes = ["--trainer.max_steps=48", "--evaluation.episodes=1", "--trainer.accelerator=cpu"]
    argv = ["fit", f"--config={CONFIGS / 'sac_state.yaml'}", f"--run_dir={folder}", *short, *sizes]
    assert main([*argv, "--trainer.val_check_interval=null"]) == 0
    return folder


ALGORITHMS: list[tuple[type[agents.Agent], dict[str, Any]]] = [
    (agents.BC, {}),
    (agents.DrQV2, {"bc_weight": 2.5}),
    (agents.CQL, {"bc_weight": 2.5}),
    (agents.TD3BC, {}),
    (agents.IQL, {}),
    (agents.EDAC, {"num_critics": 3}),
    (agents.CQLSAC, {"cql_lagrange": True}),
    (SAC, {}),
    (agents.REDQ, {"policy_update_delay": 1}),
]


def logged_by(cls: type[agents.Agent], settings: dict[str, Any]) -> set[str]:
    """Everything that four updates of an agent on states log."""
    agent = cls(
        observation="states",
        observation_dim=3,
        action_dim=ACTION_DIM,
        hidden_dim=8,
        log_every_n_updates=1,
        **settings,
    )
    run = trainer(4)
    run.fit(agent, loader(agent, shape=(3,)))
    return set(run.logged_metrics) | set(run.callback_metrics)


@pytest.fixture(scope="module")
def resynthesised(tmp_path_factory) -> Path:
    """An online run with synthetic transitions."""
    folder = tmp_path_factory.mktemp("resynthesised")
    assert main(online_arguments(folder)) == 0
    return folder


@pytest.fixture(scope="module")
def written(everything, online, resynthesised) -> set[str]:
    """All tags: of the runs, and of every algorithm in the section `agent`."""
    runs = (everything, online, resynthesised)
    folders = {path.parent for run in runs for path in (run / "tensorboard").rglob("events.*")}
    tags = {tag for folder in folders for tag in tags_of(folder)}
    return tags | {f"agent/{name}" for case in ALGORITHMS for name in logged_by(*case)}


def test_every_written_tag_is_documented(written):
    patterns = documented().values()
    assert sorted(tag for tag in written if not any(pattern.fullmatch(tag) for pattern in patterns)) == []


def test_every_documented_tag_is_written(written):
    missing = [tag for tag, pattern in documented().items() if not any(map(pattern.fullmatch, written))]
    assert missing == []


def test_every_panel_is_a_picture_and_not_blank(everything):
    shown = 0
    for folder in (everything / "tensorboard").iterdir():
        events = read(folder)
        for tag in events.Tags()["images"]:
            for event in events.Images(tag):
                if not tag.endswith("video"):
                    pixels = iio.imread(event.encoded_image_string, extension=".png")
                    assert pixels.shape[0] >= 300
                    assert pixels.shape[1] >= 600
                    assert pixels[..., :3].std() > 10, tag
                    shown += 1
    assert shown >= 10


def test_the_video_plays(everything):
    (event,) = read(everything / "tensorboard" / "agent").Images("agent/test/video")
    frames = iio.imread(event.encoded_image_string, extension=".gif", index=None, mode="RGB")
    assert len(frames) > 5
    assert frames.std() > 5
    assert np.abs(np.diff(frames.astype(float), axis=0)).max() > 0  # something moves


def test_curves_are_over_gradient_updates_and_over_hours(everything):
    events = read(everything / "tensorboard" / "diffusion")
    hours = events.Scalars("diffusion/time/training_hours")
    assert hours[-1].step == 12
    assert 0 < hours[-1].value < 1
    assert events.Scalars("diffusion/train/loss")[-1].step == 12
    agent = read(everything / "tensorboard" / "agent")
    assert [event.step for event in agent.Scalars("agent/eval/return_mean")] == [6, 12]
    assert [event.step for event in agent.Scalars("agent/test/return_mean")] == [12]


def test_the_projector_has_points_labels_and_thumbnails_of_both_kinds(everything):
    folder = everything / "tensorboard" / "synthesis"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    points = np.loadtxt(folder / embedding.tensor_path, delimiter="\t")
    header, *labels = [
        line.split("\t") for line in (folder / embedding.metadata_path).read_text().splitlines()
    ]
    assert header == ["kind", "reward", "distance_to_real", "episode"]
    assert len(points) == len(labels)
    assert {label[0] for label in labels} == {"real", "synthetic"}
    assert {int(label[3]) for label in labels} <= set(range(5))  # of the sixth nothing is trained on
    real, made = ([float(label[2]) for label in labels if label[0] == kind] for kind in ("real", "synthetic"))
    assert set(real) == {0.0}
    assert min(made) > 0
    sprite = iio.imread(folder / embedding.sprite.image_path)
    assert list(embedding.sprite.single_image_dim) == [32, 32]
    side = int(np.ceil(len(points) ** 0.5))
    assert sprite.shape[:2] == (32 * side, 32 * side)
    assert max(sprite.shape) <= 8192
    assert sprite[16, : 32 * side].std() > 5


def test_states_have_panels_and_a_projector_without_thumbnails(tmp_path):
    real = RealTransitions(Stage(tmp_path, "states", {}))
    spec = TransitionSpec(observation_dim=3, action_dim=2, discount=0.99, terminal=True)
    for seed, path in enumerate((real.stage.directory / "heldout", real.train, tmp_path / "made")):
        rows = torch.randn(60, spec.dim, generator=torch.Generator().manual_seed(seed))
        rows[:, -1] = (rows[:, -1] > 0).float()
        with StoreWriter(path, spec, 60, seed=0, producer="test", fingerprint="") as writer:
            writer.write(0, rows)
            writer.commit()
    factory = TrainerFactory(tmp_path, 0, {"accelerator": "cpu"})
    judge(factory, real, TransitionStore.open(tmp_path / "made"))
    folder = tmp_path / "tensorboard" / "synthesis"
    shown = {f"synthesis/panels/{name}" for name in ("3_pca", "4_reward_and_discount", "5_novelty")}
    assert shown <= tags_of(folder)
    assert "synthesis/fidelity/ks_terminal" in tags_of(folder)
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    assert not config.embeddings[0].HasField("sprite")
    labels = (folder / config.embeddings[0].metadata_path).read_text()
    assert labels.startswith("kind\treward\tdistance_to_real\n")


def test_a_rebuilt_stage_replaces_what_it_showed(everything, root, tmp_path):
    run = Path(shutil.copytree(everything, tmp_path / "run"))
    shown = ["--synthesis.num_transitions=60", "--comparison.real_only=false", "--trainer.max_steps=6"]
    fit(tmp_path / "tiny.yaml", root, run, *shown)
    events = read(run / "tensorboard" / "synthesis")
    assert len(events.Images("synthesis/panels/3_pca")) == 1
    assert len(events.Scalars("synthesis/fidelity/ks_mean")) == 1
    agent = read(run / "tensorboard" / "agent")
    assert [event.step for event in agent.Scalars("agent/train/critic_loss")] == [2, 4, 6]
    assert len(list((run / "tensorboard" / "summary").glob("events*"))) == 1


@pytest.fixture(scope="module")
def board(everything, online, tmp_path_factory) -> str:
    """A TensorBoard server over two runs; its address."""
    logdir = tmp_path_factory.mktemp("runs")
    for name, folder in {"pixels": everything, "online": online}.items():
        (logdir / name).symlink_to(folder / "tensorboard", target_is_directory=True)
    server = program.TensorBoard(plugins=default.get_plugins())
    server.configure(argv=["", f"--logdir={logdir}", "--port=0", "--load_fast=false", "--reload_interval=1"])
    url = server.launch()
    deadline = time.monotonic() + 60
    while "pixels/summary" not in get(url, "data/runs") and time.monotonic() < deadline:
        time.sleep(0.2)
    return url


def get(url: str, path: str, **query: str) -> Any:
    with urllib.request.urlopen(f"{url}{path}?{urllib.parse.urlencode(query)}", timeout=30) as answer:
        return json.loads(answer.read())


def post(url: str, path: str, content: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}{path}", json.dumps(content).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_the_hparams_tab_compares_runs(board, everything):
    experiment = post(board, "data/plugin/hparams/experiment", {"experimentName": ""})
    settings = {info["name"] for info in experiment["hparamInfos"]}
    assert {"model.class", "diffusion.model.width", "seed_everything", "trainer.max_steps"} <= settings
    assert {"data.dataset.task", "data.dataset.n_step", "synthesis.num_transitions"} <= settings
    columns = [{"hparam": "model.class", "includeInResult": True}]
    names = ["agent_return_mean", "real_only_return_mean", "fidelity_ks_mean"]
    columns += [{"metric": {"tag": f"summary/{name}", "group": ""}} for name in names]
    request = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS"],
        "colParams": columns,
        "startIndex": 0,
        "sliceSize": 10,
    }
    groups = post(board, "data/plugin/hparams/session_groups", request)["sessionGroups"]
    by_class = {group["hparams"]["model.class"]: group for group in groups}
    assert set(by_class) == {"DrQV2", "SAC"}
    values = {metric["name"]["tag"]: metric["value"] for metric in by_class["DrQV2"]["metricValues"]}
    summary = json.loads((everything / "summary.json").read_text())
    assert values["summary/agent_return_mean"] == pytest.approx(summary["return_mean"], rel=1e-5)
    assert values["summary/fidelity_ks_mean"] == pytest.approx(summary["fidelity"]["ks_mean"], rel=1e-5)
    assert "summary/fidelity_ks_mean" not in {m["name"]["tag"] for m in by_class["SAC"]["metricValues"]}


def test_the_projector_tab_loads_the_points(board):
    found = get(board, "data/plugin/projector/info", run="pixels/synthesis")
    (embedding,) = found["embeddings"]
    assert embedding["sprite"]["singleImageDim"] == [32, 32]
    query = {"run": "pixels/synthesis", "name": embedding["tensorName"]}
    address = f"{board}data/plugin/projector/tensor?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        points = np.frombuffer(answer.read(), np.float32)
    assert len(points) == np.prod(embedding["tensorShape"])
    assert np.isfinite(points).all()
