"""JND estimation in JAX."""
