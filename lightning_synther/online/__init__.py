"""Agents that act while they learn: stepping environments, behaviour policies, collecting data."""
