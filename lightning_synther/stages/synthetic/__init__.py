"""Where synthetic transitions come from: a diffusion model of real ones, once or again and again, and its samples."""
