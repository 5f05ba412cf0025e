"""Agents, on pixels, latents or states: pure losses in one file an algorithm, and the modules that order
updates.
"""

from lightning_synther.agents.agent import Agent
from lightning_synther.agents.modules import BC, DrQV2

__all__ = ["BC", "Agent", "DrQV2"]
