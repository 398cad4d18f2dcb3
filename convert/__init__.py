"""From the published PyTorch checkpoints to the weights of hvsjnd_jax."""
