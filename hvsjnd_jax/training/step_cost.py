"""Compiles the training steps ahead of time, for TPUs that need not exist, and reads their cost.

`libtpu` compiles for TPUs that are not there: a step's memory, arithmetic and traffic are what
the chips' own compiler says. Nothing is run, so no time is measured.
"""

import math
import os
import re
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hvsjnd_jax.data.crops import Crops
from hvsjnd_jax.metrics.backbones import VGG16, Backbones, ResNet34
from hvsjnd_jax.ops.errors import HVSJNDError
from hvsjnd_jax.runtime.sharding import REPLICATED, SHARDED, PyTree, make_mesh
from hvsjnd_jax.training.config import Stage, TrainConfig
from hvsjnd_jax.training.guards import check_batch
from hvsjnd_jax.training.jax_settings import fixed_jax_settings
from hvsjnd_jax.training.train_state import build_model, init_state, split_model
from hvsjnd_jax.training.train_step import make_step

_GIB = 2**30

# The memory of one chip, from Google's public page on each generation.
_CHIP_MEMORY_GIB = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32}

# Without these, libtpu looks for TPUs on the network where the host has none, and complains; and
# it keeps other processes from using it, as if it were going to use the TPUs.
_COMPILE_ONLY = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_ACCELERATOR_TYPE": "v5litepod-1",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

_COLLECTIVE = re.compile(
  r" = (?P<shapes>.*?) (?P<name>all-reduce|all-gather|all-to-all|reduce-scatter"
  r"|collective-permute)(-start)?\("
)

_ARRAY = re.compile(r"\b(?P<type>[a-z]+\d+)\[(?P<sides>[\d,]*)\]")


class TopologyError(HVSJNDError):
  """A topology cannot be compiled for. The message says why."""


class Cost(NamedTuple):
  """What one step costs one chip, according to the compiler."""

  chips: int
  batch_size: int  # of all chips
  compile_seconds: float
  resident_bytes: int  # state, frozen network and crops
  temporary_bytes: int
  program_bytes: int
  flops: float
  moved_bytes: float  # to and from the chip's memory
  all_reduce_bytes: int  # what the chip sends into all-reduces
  collectives: dict[str, int]  # how many there are of each name

  def describe(self, topology: str) -> str:
    """Describes the cost in lines, beside the memory that a chip of the topology has."""
    used = self.resident_bytes + self.temporary_bytes + self.program_bytes
    memory = _CHIP_MEMORY_GIB.get(topology.partition(":")[0])
    of_chip = f" of {memory}" if memory else ""
    rows = {
      "batch": f"{self.batch_size} crops, {self.batch_size // self.chips} on each chip",
      "memory of a chip": f"{used / _GIB:.2f}{of_chip} GiB: state and crops "
      f"{self.resident_bytes / _GIB:.2f}, temporary {self.temporary_bytes / _GIB:.2f}, program "
      f"{self.program_bytes / _GIB:.2f}",
      "a step and chip": f"{self.flops / 1e12:.3f} TFLOP, {self.moved_bytes / 1e9:.1f} GB moved, "
      f"{self.all_reduce_bytes / 1e6:.2f} MB all-reduced",
      "collectives": ", ".join(f"{n} {name}" for name, n in self.collectives.items()) or "none",
      "compiled in": f"{self.compile_seconds:.0f} s",
    }
    return "\n".join(f"  {name + ':':<18}{value}" for name, value in rows.items())


def open_topology(name: str, *, slices: int = 1) -> list[jax.Device]:
  """Lists the chips of TPU slices, which need not exist.

  Args:
    name: Generation and shape of each slice, such as "v5e:16x16".
    slices: How many there are; the data centre's network joins them.

  Raises:
    TopologyError: If libtpu is missing, or knows no such topology.
  """
  for variable, value in _COMPILE_ONLY.items():
    os.environ.setdefault(variable, value)
  # A single chip is not a slice of whole hosts, and needs bounds of its own.
  alone: dict[str, Any] = {"chips_per_host_bounds": (1, 1, 1)} if name.endswith(":1x1") else {}
  try:
    topology = topologies.get_topology_desc(
      platform="tpu", topology_name=name, num_slices=slices, **alone
    )
  except Exception as error:  # the plugin raises several kinds
    reason = str(error).strip().partition("\n")[0]
    raise TopologyError(
      f"no topology {name!r}: {reason}. This needs libtpu, from pip install 'jax[tpu]', and a "
      "name such as v5e:16x16."
    ) from None
  return list(topology.devices)


@fixed_jax_settings()
def compile_ahead(config: TrainConfig, stage: Stage, devices: list[jax.Device]) -> Cost:
  """Compiles a stage's step for devices that need not exist.

  Args:
    config: The run.
    stage: The stage whose step is compiled.
    devices: Those of `open_topology`, or real ones.

  Raises:
    TrainError: If the devices cannot share a batch.
  """
  settings = config.settings(stage)
  mesh = make_mesh(devices)
  check_batch(settings, stage, mesh)
  graph, arguments = _shape_arguments(config, stage, mesh)
  start = time.perf_counter()
  step: Any = make_step(config, stage, graph, mesh)  # the type Step hides that it is jitted
  compiled = step.lower(*arguments).compile()
  seconds = time.perf_counter() - start
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
  collectives, all_reduce_bytes = _count_collectives(compiled.as_text())
  return Cost(
    chips=mesh.size,
    batch_size=settings.batch_size,
    compile_seconds=seconds,
    resident_bytes=memory.argument_size_in_bytes,
    temporary_bytes=memory.temp_size_in_bytes,
    program_bytes=memory.generated_code_size_in_bytes,
    # The compiler counts the loop over the parts of a batch as one pass.
    flops=cost["flops"] * settings.accumulation_steps,
    moved_bytes=cost["bytes accessed"] * settings.accumulation_steps,
    all_reduce_bytes=all_reduce_bytes,
    collectives=collectives,
  )


def _shape_arguments(
  config: TrainConfig, stage: Stage, mesh: Mesh
) -> tuple[nnx.GraphDef, tuple[PyTree, ...]]:
  """Returns the model's structure, and the step's arguments as shapes with their shardings."""

  def place(tree: PyTree, spec: PartitionSpec) -> PyTree:
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )

  settings = config.settings(stage)
  graph, params, frozen = split_model(nnx.eval_shape(lambda: build_model(config)), stage)
  state = jax.eval_shape(lambda params: init_state(params, settings), params)
  batch, crop = settings.batch_size, settings.crop_px
  crops = Crops(
    np.empty((batch, crop, crop, 3), np.uint8),
    np.empty(batch, np.uint32),
    np.empty(batch, np.int32),
  )
  backbones = None
  if stage == "jnd" and config.jnd.quality_form == "aic":
    backbones = nnx.eval_shape(
      lambda: Backbones(VGG16(rngs=nnx.Rngs(0)), ResNet34(rngs=nnx.Rngs(0)))
    )
  state, frozen, backbones = (place(tree, REPLICATED) for tree in (state, frozen, backbones))
  return graph, (state, 0, frozen, place(crops, SHARDED), backbones)


def _count_collectives(hlo: str) -> tuple[dict[str, int], int]:
  """Counts a program's collectives by name, and the bytes of its all-reduces."""
  collectives: dict[str, int] = {}
  all_reduce_bytes = 0
  for found in _COLLECTIVE.finditer(hlo):
    name = found["name"]
    collectives[name] = collectives.get(name, 0) + 1
    if name == "all-reduce":
      all_reduce_bytes += _count_bytes(found["shapes"])
  return collectives, all_reduce_bytes


def _count_bytes(shapes: str) -> int:
  """Counts the bytes of the arrays that a line of HLO names: f32[3,3,7,32], bf16[128], ..."""
  return sum(
    math.prod(int(side) for side in array["sides"].split(",") if side)
    * int(re.sub(r"\D", "", array["type"]))
    // 8
    for array in _ARRAY.finditer(shapes)
  )
