"""The chain of stages behind ``fit``: encoder, diffusion, synthesis, agent."""
