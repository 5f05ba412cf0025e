"""Networks: encoders, trunks, heads, ensembles, distributions, the denoiser."""
