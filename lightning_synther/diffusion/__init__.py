"""Diffusion over flat transitions: preconditioning, loss, samplers, and the LightningModule around them."""
