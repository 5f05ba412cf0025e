"""Numbers with which no agent can learn are refused where it is built."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lightning_synther.agents import BC, CQL, CQLSAC, EDAC, IQL, REDQ, SAC, TD3BC, Agent, DrQV2
from lightning_synther.agents.schedules import parse_schedule
from lightning_synther.errors import ConfigError
from tests.agents.tiny import PIXELS, SIZES, make_batch

STATES = {**SIZES, "observation": "states", "observation_dim": 5}
ALL = (BC, CQL, CQLSAC, DrQV2, EDAC, IQL, REDQ, SAC, TD3BC)
WITH_CRITICS = tuple(cls for cls in ALL if cls is not BC)
MAX_ENTROPY = (CQLSAC, EDAC, REDQ, SAC)


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize(
    "setting",
    [
        {"hidden_dim": 0},
        {"num_layers": -1},
        {"log_every_n_updates": 0},
        {"lr": -1.0},
        {"lr": 0.0},
        {"lr": math.nan},
        {"action_dim": 0},
        {"observation_dim": -3},
    ],
)
def test_every_agent_checks_its_numbers(cls: type[Agent], setting: dict[str, Any]) -> None:
    refuses(cls, setting)


@pytest.mark.parametrize("cls", WITH_CRITICS)
@pytest.mark.parametrize("setting", [{"num_critics": 0}, {"tau": 0.0}, {"tau": 1.5}])
def test_agents_with_critics_check_theirs(cls: type[Agent], setting: dict[str, Any]) -> None:
    refuses(cls, setting, named="num_" if "num_critics" in setting else None)  # REDQ compares it with num_min


@pytest.mark.parametrize("cls", MAX_ENTROPY)
@pytest.mark.parametrize(
    "setting",
    [{"initial_temperature": 0.0}, {"initial_temperature": -1.0}, {"actor_lr": -1.0}, {"max_action": 0.0}],
)
def test_maximum_entropy_agents_check_theirs(cls: type[Agent], setting: dict[str, Any]) -> None:
    refuses(cls, setting)


@pytest.mark.parametrize(
    ("cls", "setting"),
    [
        (SAC, {"actor_every": 0}),
        (REDQ, {"utd_ratio": 0}),
        (REDQ, {"policy_update_delay": 0}),
        (TD3BC, {"policy_freq": 0}),
        (TD3BC, {"max_action": -1.0}),
        (IQL, {"max_steps": 0}),
        (IQL, {"iql_tau": 0.0}),
        (IQL, {"exp_adv_max": 0.0}),
        (EDAC, {"temperature_lr": -1.0}),
        (CQLSAC, {"target_update_period": 0}),
        (CQLSAC, {"cql_n_actions": 0}),
        (CQLSAC, {"bc_steps": -1}),
        (CQLSAC, {"cql_temp": 0.0}),
        (CQL, {"num_random": 0}),
        (CQL, {"temp": 0.0}),
        (DrQV2, {"schedule_steps_per_update": 0}),
    ],
)
def test_an_algorithm_checks_its_own(cls: type[Agent], setting: dict[str, Any]) -> None:
    refuses(cls, setting)


@pytest.mark.parametrize("setting", [{"feature_dim": 0}, {"frame_stack": 0}, {"image_size": -84}])
def test_an_agent_on_pixels_checks_its_sizes(setting: dict[str, Any]) -> None:
    [(name, value)] = setting.items()
    with pytest.raises(ConfigError, match=f"^{name} is {value}: give at least 1$"):
        DrQV2(**{**PIXELS, **setting})


@pytest.mark.parametrize("cls", ALL)
def test_heads_without_hidden_layers_are_linear_and_learn(cls: type[Agent]) -> None:
    length = {"max_steps": 1} if cls is IQL else {}  # of its actor's schedule, outside a Trainer
    agent = cls(**STATES, num_layers=0, **length)
    agent.update(make_batch(0, shape=(5,)))
    assert agent.num_updates == 1


@pytest.mark.parametrize(
    ("schedule", "deviation"),
    [
        (0, "0"),
        ("0", "0"),
        ("-0.1", "-0.1"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("linear(1.0,0.0,100)", "0"),
        ("linear(0,0.1,100)", "0"),
        ("step_linear(1.0,-0.2,100,0.1,100)", "-0.2"),
        ("step_linear(1.0,0.2,100,0,100)", "0"),
    ],
)
def test_a_schedule_of_noise_stays_above_0(schedule: str | float, deviation: str) -> None:
    with pytest.raises(ConfigError, match=f"holds the standard deviation {deviation}: give numbers above 0"):
        parse_schedule(schedule)
    with pytest.raises(ConfigError, match="give numbers above 0"):
        BC(**STATES, stddev_schedule=str(schedule))


def refuses(cls: type[Agent], setting: dict[str, Any], named: str | None = None) -> None:
    [(name, value)] = setting.items()
    with pytest.raises(ConfigError, match=rf"^{named or f'{name} is {value}: give '}") as info:
        cls(**{**STATES, **setting})
    assert "\n" not in str(info.value)
