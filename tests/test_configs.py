"""Every config parses against the command line as it is, so that none can rot."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_synther.cli import SyntherCLI
from lightning_synther.errors import ConfigError
from lightning_synther.stages.run import Run

CONFIGS = Path(__file__).parents[1] / "configs"
BASE = CONFIGS / "vd4rl_cheetah.yaml"
STATES = CONFIGS / "state_offline.yaml"
COMBINATIONS = [[path] for path in sorted(CONFIGS.glob("*.yaml"))] + [
    [STATES if path.stem.startswith("state_") else BASE, path]
    for kind in ("scale", "generator", "encoder")
    for path in sorted(CONFIGS.glob(f"{kind}/*.yaml"))
]
ONLINE = [CONFIGS / name for name in ("synther_online.yaml", "synther_pixels_online.yaml")]
COMBINATIONS += [
    [base, CONFIGS / "generator" / name] for base in ONLINE for name in ("pgr.yaml", "small.yaml")
]


class Parsed(SyntherCLI):
    """The command line without its command."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def parse(*args: str | Path) -> Parsed:
    return Parsed([str(arg) for arg in args])


@pytest.mark.parametrize("paths", COMBINATIONS, ids=lambda paths: "+".join(path.stem for path in paths))
def test_a_config_parses_and_passes_its_checks(paths):
    cli = parse("fit", *(f"--config={path}" for path in paths))
    Run(cli.settings).check()
    assert cli.settings.run_dir == f"runs/{paths[-1].stem}"


def test_there_are_configs():
    assert BASE in [paths[0] for paths in COMBINATIONS]
    assert [BASE, CONFIGS / "scale" / "quick.yaml"] in COMBINATIONS


def test_what_is_published_for_states_is_in_their_config():
    settings = parse("fit", f"--config={STATES}").settings
    denoiser, agent = settings.diffusion.model, settings.model.init_args
    assert (denoiser.width, denoiser.num_layers, denoiser.time_dim) == (2048, 6, 128)
    assert (denoiser.normalizer, denoiser.skip_fields) == ("standard", ["terminal"])
    assert (denoiser.sampler, denoiser.num_sampling_steps) == ("stochastic_heun", 128)
    assert (settings.diffusion.training.max_steps, settings.synthesis.num_transitions) == (10**5, 5 * 10**6)
    assert (agent.hidden_dim, agent.alpha, agent.normalize_states) == (256, 2.5, True)
    assert (settings.data.init_args.mixing, settings.trainer.max_steps) == ("synthetic", 10**6)


@pytest.mark.parametrize(
    "flags",
    [
        ["--model=IQL", "--data.reward_scale=return_range"],
        ["--model=CQLSAC"],
        ["--model=EDAC", "--model.normalize_states=false"],
        ["--model.hidden_dim=512", "--model.num_layers=3"],
        ["--model.residual=true"],
        ["--data.num_real_episodes=2"],
        ["--data.fraction=0.15", "--data.fraction_of=transitions"],
    ],
)
def test_recipes_on_states_are_flags(flags):
    Run(parse("fit", f"--config={STATES}", *flags).settings).check()


@pytest.mark.parametrize(
    ("base", "flags", "sentence"),
    [
        (BASE, ["--data.fraction=0"], "fraction is 0.0: give a share in"),
        (BASE, ["--data.fraction=1.5"], "fraction is 1.5: give a share in"),
        (
            BASE,
            ["--data.fraction=0.5", "--data.fraction_of=transitions"],
            "pixels are kept by whole episodes",
        ),
        (BASE, ["--data.fraction=0.5", "--data.num_real_episodes=2"], "give one of them"),
        (BASE, ["--data.fraction=0.5", "--data.real=some/store"], "which is trained on as it is"),
        (BASE, ["--data.num_real_episodes=0"], "num_real_episodes is 0: give at least 1"),
        (
            STATES,
            ["--model.observation=latents"],
            "model.observation is 'latents', but the agent is trained on states",
        ),
        (
            STATES,
            ["--diffusion.conditions=[td_error]", "--synthesis.prompt=top"],
            "the data are states, which no",
        ),
        (STATES, ["--data.dataset=null"], "SynthERStates with neither a `dataset` nor a `real` store"),
    ],
)
def test_parts_of_data_that_cannot_be_are_refused(base, flags, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Run(parse("fit", f"--config={base}", *flags).settings).check()


SAC = CONFIGS / "sac_state.yaml"
PIXELS = CONFIGS / "drqv2_online.yaml"


@pytest.mark.parametrize(
    ("base", "flags", "sentence"),
    [
        (
            SAC,
            ["--model=TD3BC"],
            "TD3BC cannot act while it learns, which OnlineData needs: use SAC, REDQ or DrQV2",
        ),
        (SAC, ["--model=IQL"], "IQL cannot act while it learns"),
        *(
            (
                SAC,
                [f"--model={name}"],
                f"model.observation is 'pixels', which --model={name} takes by default, but the data decide it and "
                "have 'states': give --model.observation=states",
            )
            for name in ("DrQV2", "BC")
        ),
        (PIXELS, ["--model=SAC"], "takes by default, .* 'pixels': give --model.observation=pixels"),
        (
            SAC,
            ["--model.observation_dim=3"],
            "model.observation_dim is 3, but the data decide it .*: remove it",
        ),
        (
            SAC,
            ["--model=DrQV2", "--model.observation=latents"],
            "model.observation is 'latents', but the data decide it .*: give --model.observation=states",
        ),
        (SAC, ["--data.gamma=1.5"], "data.gamma is 1.5: give a number above 0 and at most 1"),
        (SAC, ["--data.replay_capacity=0"], "data.replay_capacity is 0: give at least data.batch_size"),
        (SAC, ["--data.env.task=lqr_lqr_2_1"], "an episode of lqr_lqr_2_1 may never end: give time_limit"),
        (
            SAC,
            [
                "--data.env={task: 'gymnasium:Pendulum-v1', observation: states, env_kwargs: {max_episode_steps: -1}}"
            ],
            "an episode of gymnasium:Pendulum-v1 may never end: give env_kwargs.max_episode_steps",
        ),
        (BASE, ["--model.hidden_dim=0"], "hidden_dim is 0: give at least 1"),
        (BASE, ["--encoder.model.lr=-1"], "lr is -1.0: give a number above 0"),
        (BASE, ["--data.dataset.gamma=1.5"], "dataset.gamma is 1.5"),
        (BASE, ["--data.dataset.n_step=0"], "dataset.n_step is 0"),
        (BASE, ["--diffusion.model.log_every_n_updates=0"], "log_every_n_updates is 0: give at least 1"),
        (STATES, ["--model.policy_freq=0"], "policy_freq is 0: give at least 1"),
        (STATES, ["--data.dataset.gamma=0"], "dataset.gamma is 0.0"),
    ],
)
def test_an_agent_and_data_that_cannot_learn_are_refused(base, flags, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Run(parse("fit", f"--config={base}", *flags).settings).check()


@pytest.mark.parametrize("name", ["DrQV2", "BC"])
def test_the_remedy_for_an_agents_default_is_one(name):
    Run(parse("fit", f"--config={SAC}", f"--model={name}", "--model.observation=states").settings).check()


def test_prioritized_generative_replay_is_a_config():
    quick, pgr = CONFIGS / "scale" / "quick.yaml", CONFIGS / "generator" / "pgr.yaml"
    settings = parse("fit", *(f"--config={path}" for path in (BASE, quick, pgr))).settings
    Run(settings).check()
    assert settings.diffusion.conditions == ["curiosity"]
    assert (settings.synthesis.prompt, settings.synthesis.guidance_weight) == ("top", 2.0)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--synthesis.prompt=top"], "but the model has no conditions: train it with some"),
        (["--synthesis.guidance_weight=2"], "guidance_weight is 2.0 and prompt None, but the model has no"),
        (["--diffusion.conditions=[reward]"], "conditioned on reward, but synthesis.prompt is not set"),
        (
            [
                "--diffusion.conditions=[reward]",
                "--synthesis.prompt=values",
                "--synthesis.prompt_values=[1,2]",
            ],
            "prompt_values holds 2 numbers, the model expects 1 numbers a row",
        ),
        (["--synthesis.prompt_values=[1]"], "synthesis.prompt_values is given without a prompt"),
        (["--synthesis.policy_guidance=-1"], "give a weight of at least 0"),
    ],
)
def test_guidance_that_cannot_be_followed_is_refused_before_the_first_stage(flags, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Run(parse("fit", f"--config={BASE}", *flags).settings).check()


def test_td_error_needs_an_encoder_with_a_critic():
    flags = ["--diffusion.conditions=[td_error]", "--synthesis.prompt=top"]
    Run(parse("fit", f"--config={BASE}", *flags).settings).check()
    quick = f"--config={CONFIGS / 'scale' / 'quick.yaml'}"
    with pytest.raises(
        ConfigError, match="'td_error' needs an agent with a critic and its target, BC has none"
    ):
        Run(parse("fit", f"--config={BASE}", quick, *flags).settings).check()


def test_overlays_and_flags_lie_over_the_config():
    quick = CONFIGS / "scale" / "quick.yaml"
    plain = parse("fit", f"--config={BASE}").settings
    laid = parse("fit", f"--config={BASE}", f"--config={quick}", "--data.dataset.policy=expert").settings
    assert plain.data.init_args.dataset.policy == "medium"
    assert laid.data.init_args.dataset.policy == "expert"
    assert laid.trainer.max_steps < plain.trainer.max_steps
    assert laid.data.init_args.dataset.gamma == plain.data.init_args.dataset.gamma


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_the_other_subcommands_take_the_same_configs(subcommand):
    settings = parse(subcommand, f"--config={BASE}", "--ckpt_path=some.ckpt").settings
    assert settings.ckpt_path == "some.ckpt"
    assert settings.synthesis.num_transitions == 5_000_000


def test_what_is_published_is_in_the_full_config():
    settings = parse("fit", f"--config={BASE}").settings
    denoiser = settings.diffusion.model
    assert (denoiser.width, denoiser.num_layers, denoiser.num_sampling_steps) == (2048, 6, 128)
    assert settings.diffusion.training.max_steps == 100_000
    agent = settings.model.init_args
    assert (agent.hidden_dim, agent.bc_weight, agent.tau) == (1024, 2.5, 0.01)


ALGORITHMS = ("BC", "DrQV2", "CQL", "TD3BC", "IQL", "EDAC", "CQLSAC", "SAC", "REDQ")
SMALL = (
    "--encoder.model.hidden_dim=8",
    "--encoder.model.feature_dim=4",
    "--diffusion.model.width=8",
    "--model.hidden_dim=8",
    "--data.dataset.image_size=64",
)


@pytest.mark.parametrize("name", [*ALGORITHMS, "lightning_synther.agents.IQL"])
def test_the_algorithm_on_latents_is_one_flag(name):
    settings = parse("fit", f"--config={BASE}", f"--model={name}", *SMALL).settings
    Run(settings).check()
    assert settings.model.class_path.endswith("." + name.rpartition(".")[2])
    assert settings.model.init_args.observation == "latents"
    assert settings.model.init_args.lr == 3e-4, "what both have stays"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_algorithm_on_states_is_one_flag(name):
    settings = parse("fit", f"--config={CONFIGS / 'states.yaml'}", f"--model={name}").settings
    Run(settings).check()
    assert settings.model.init_args.observation == "states"
    assert settings.model.init_args.normalize_states


def test_what_is_published_is_in_the_online_config():
    settings = parse("fit", f"--config={ONLINE[0]}").settings
    data, denoiser = settings.data.init_args, settings.diffusion.model
    assert (data.update_to_data_ratio, data.ratio, data.resynthesise_every) == (20, 0.5, 10_000)
    assert (data.start_steps, data.env.action_repeat) == (5_000, 1)
    assert (denoiser.width, denoiser.time_dim, denoiser.skip_fields) == (1024, 256, ["reward"])
    assert settings.resynthesis.start == "scratch"


@pytest.mark.parametrize("flags", [[], ["--data.env.task=gymnasium:Hopper-v5", "--data.terminals=true"]])
def test_redq_online_is_one_flag(flags):
    settings = parse("fit", f"--config={ONLINE[0]}", "--model=REDQ", *flags).settings
    Run(settings).check()
    assert settings.model.class_path.endswith(".REDQ")
    assert settings.model.init_args.utd_ratio == settings.data.init_args.update_to_data_ratio
    assert settings.model.init_args.num_critics == 10
