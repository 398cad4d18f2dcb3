"""The paper's two stages on a TPU v5e pod slice of 256 chips, at the paper's crop of 176.

On every host of the slice, with D and TILES (`data build --tiles --crop-px 176`) on file systems
that all of them see:

python -m hvsjnd_jax.train --multihost --config configs/tpu_pod.py --workdir D \
  --config.data.images=TILES

Cost, computed and never run: 0.231 and 0.352 TFLOP, 4.5 and 15.8 GB moved, a step and chip,
0.30 and 0.78 of a chip's 16 GiB of memory (docs/training.md). Result: unknown; batches and
learning rates are guesses from the default's.
"""

from hvsjnd_jax.data.config import DataConfig
from hvsjnd_jax.training.config import JNDConfig, RateDistortionConfig, TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig(
    compute_dtype="bfloat16",  # what a TPU multiplies in
    checkpoint_every_steps=200,  # a slice may be preempted at any time
    keep_every_steps=2_000,  # kept for good, to look back at
    data=DataConfig(workers=16),  # cores for crops: docs/training.md says how many a host needs
    hvs_sd=RateDistortionConfig(
      channels=128,
      # 16 crops a chip; the larger batch allows a larger rate, which a longer warm-up leads to.
      num_steps=10_000,
      crop_px=176,
      batch_size=4096,
      learning_rate=1e-3,
      warmup_steps=500,
      ordering_weight=0.0,
    ),
    jnd=JNDConfig(
      num_steps=5_000,
      crop_px=176,
      batch_size=4096,
      learning_rate=2e-3,
      warmup_steps=500,
      # The paper's generator and losses; configs/paper.py gives the reasons.
      resolution="native",
      noise="lmbda",
      magnitude_weight=1.0,
      quality_form="ms_ssim_gmsd",
      quality_weight=3.0,
      attention_weight=0.3,
      visibility_weight=0.25,
      butteraugli_weight=0.0,
      peaks_weight=0.0,
      ssimulacra2_weight=0.0,
      jod_weight=0.0,
      structure_weight=0.0,
      departure_weight=0.0,
    ),
  )
