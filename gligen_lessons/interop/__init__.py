"""Exchange with other libraries: weights written for diffusers, published checkpoints read."""
