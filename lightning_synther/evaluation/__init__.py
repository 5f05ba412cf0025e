"""Policies scored in their environment: rollouts, scores, videos, episode seeds."""
