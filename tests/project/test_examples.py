"""Every public name has an example in its docstring, and it gives what it says.

An example stands in its module's own names; hvsjnd_jax, jax, jnp, nnx and np are there too.
"""

import doctest
import inspect
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import hvsjnd_jax
from hvsjnd_jax import baselines, export, metrics, noise, noise_scale, weights
from hvsjnd_jax.cli import saved_comparison
from hvsjnd_jax.model import masking, priors, windows
from hvsjnd_jax.training import losses, objectives, released_losses
from hvsjnd_jax.viz import sheets
from hvsjnd_jax.viz.viewer import page

COMMON = {"hvsjnd_jax": hvsjnd_jax, "jax": jax, "jnp": jnp, "nnx": nnx, "np": np}


def own_names(module: ModuleType) -> list[str]:
  """What is defined in a module, and not private."""
  return [
    name
    for name, value in vars(module).items()
    if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
  ]


PUBLIC = {
  hvsjnd_jax: hvsjnd_jax.__all__,
  metrics: metrics.__all__,
  baselines: baselines.__all__,
  **{module: own_names(module) for module in (losses, released_losses, noise, noise_scale, sheets)},
  masking: ["threshold"],
  page: ["draw_page"],
  saved_comparison: ["name_pictures"],
  windows: ["plan_window", "analyze", "analyze_each"],
  priors: ["compute_priors"],
  weights: ["load", "save"],
  export: ["export_estimate"],
  objectives: ["jnd_objective", "rate_distortion_objective"],
}
OBJECTS = {
  f"{module.__name__}.{name}": value
  for module, names in PUBLIC.items()
  for name in names
  if inspect.isfunction(value := getattr(module, name)) or inspect.isclass(value)
}


@pytest.mark.parametrize("name", OBJECTS)
def test_example_gives_what_it_says(name: str):
  value: Any = OBJECTS[name]
  names = vars(inspect.getmodule(value)) | COMMON
  (examples,) = doctest.DocTestFinder(recurse=False).find(value, name, globs=names)
  assert examples.examples, "no example"
  told: list[str] = []
  doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples, out=told.append)
  assert not told, "".join(told)
