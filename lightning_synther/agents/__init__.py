"""Agents, on pixels, latents or states: pure losses in one file an algorithm, and the modules that order
updates.
"""

from lightning_synther.agents.agent import Agent
from lightning_synther.agents.cql_module import CQL
from lightning_synther.agents.cql_sac_module import CQLSAC
from lightning_synther.agents.edac_module import EDAC
from lightning_synther.agents.iql_module import IQL
from lightning_synther.agents.latent_replay_module import LatentReplayDrQV2
from lightning_synther.agents.modules import BC, DrQV2
from lightning_synther.agents.redq_module import REDQ
from lightning_synther.agents.sac_module import SAC
from lightning_synther.agents.td3_bc_module import TD3BC

__all__ = [
    "BC",
    "CQL",
    "CQLSAC",
    "EDAC",
    "IQL",
    "REDQ",
    "SAC",
    "TD3BC",
    "Agent",
    "DrQV2",
    "LatentReplayDrQV2",
]
