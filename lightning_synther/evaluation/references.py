"""Returns that count as 0 and as 100: of dm_control, and of D4RL as published.

D4RL's (Fu et al. 2020, arXiv 2004.07219; its ``infos.py``) are the mean returns of a random policy and of an
expert in the versions of the environments that its data come from.
"""

from __future__ import annotations

import re

from lightning_synther.envs.config import DM_CONTROL, EnvConfig

References = tuple[float, float]

DM_CONTROL_REFERENCES: References = (0.0, 1000.0)
#: Beginning of a data set's name -> references; the longest that fits counts.
D4RL: dict[str, References] = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
    "antmaze": (0.0, 1.0),
    "maze2d-open": (0.01, 20.66),
    "maze2d-umaze": (23.85, 161.86),
    "maze2d-medium": (13.13, 277.39),
    "maze2d-large": (6.7, 273.99),
    "maze2d-open-dense": (11.17817, 27.166538620695782),
    "maze2d-umaze-dense": (68.537689, 193.66285642381482),
    "maze2d-medium-dense": (44.264742, 297.4552547777125),
    "maze2d-large-dense": (30.569041, 303.4857382709002),
    "pen": (96.262799, 3076.8331017826877),
    "hammer": (-274.856578, 12794.134825156867),
    "relocate": (-6.425911, 4233.877797728884),
    "door": (-56.512833, 2880.5693087298737),
    "kitchen": (0.0, 4.0),
}
#: Family -> Gymnasium's name of its environment, from which D4RL's references are taken.
GYMNASIUM = {"halfcheetah": "HalfCheetah", "hopper": "Hopper", "walker2d": "Walker2d", "ant": "Ant"}
#: Beginning of a family's name -> Gymnasium-Robotics' name of what took its environment's place.
ROBOTICS = {
    "antmaze": "AntMaze",
    "maze2d": "PointMaze",
    "pen": "AdroitHandPen",
    "hammer": "AdroitHandHammer",
    "relocate": "AdroitHandRelocate",
    "door": "AdroitHandDoor",
    "kitchen": "FrankaKitchen",
}
#: D4RL's files that say walker for walker2d; without a kind of D4RL, or its version, walker is dm_control's.
_WALKER = re.compile(r"walker-(mixed|(random|medium|expert|medium-expert|medium-replay|full-replay)-v\d+)")


def d4rl_family(name: str) -> str | None:
    """The key of `D4RL` for a data set's name or file: ``hopper_medium-v2`` and ``Ant_maze_u-maze_...`` too.

    >>> d4rl_family("walker_mixed"), d4rl_family("maze2d-umaze-sparse-v1"), d4rl_family("walker_walk")
    ('walker2d', 'maze2d-umaze', None)
    """
    plain = name.lower().replace("ant_maze", "antmaze").replace("_", "-")
    if _WALKER.fullmatch(plain):
        return "walker2d"
    if plain.startswith("maze2d-eval"):  # other mazes, with references of their own
        return None
    fits = [key for key in D4RL if plain == key or plain.startswith(f"{key}-")]
    return max(fits, key=len, default=None)


def is_of_family(task: str, family: str) -> bool:
    """Whether ``task`` is Gymnasium's environment of a family of `D4RL`, of any version.

    >>> is_of_family("gymnasium:Hopper-v5", "hopper"), is_of_family("hopper_hop", "hopper")
    (True, False)
    """
    library, _, name = task.partition(":")
    wanted = GYMNASIUM.get(family) or ROBOTICS[family.partition("-")[0]]
    return library == "gymnasium" and re.split("_|-v", name)[0] == wanted


def references(config: EnvConfig) -> References | None:
    """What returns in ``config`` are measured against: its own, else dm_control's or D4RL's; None without any."""
    if config.reference_scores is not None:
        return config.reference_scores
    if config.library == DM_CONTROL:
        return DM_CONTROL_REFERENCES
    name = config.task.partition(":")[2].rpartition("-v")[0]
    known = config.library == "gymnasium" and name in GYMNASIUM.values()
    return D4RL[name.lower()] if known else None
