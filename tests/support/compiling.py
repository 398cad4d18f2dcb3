"""How the tests compile, which takes most of their time."""

# XLA's former code generator, and code in one piece, take half the time. They round sums otherwise.
FASTER_FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

# As `compiler_options` of a `jax.jit`: the code generator that users have, where bits matter.
AS_USERS = {"xla_cpu_use_fusion_emitters": True}
