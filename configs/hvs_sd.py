"""Stage 1 alone: HVS-SD, which loses what vision loses.

python -m hvsjnd_jax.train --config configs/hvs_sd.py --workdir D --config.data.images=PHOTOS

Cost: 5,000 steps at 11 crops a second on one CPU core, 30 minutes. Result on 258 photographs: an
MSE of 0.0025 at 1.26 bits per pixel and an ordering of 0.147 over the last 500 steps, with noise
on the feature (the default weights' model card).
"""

from hvsjnd_jax.training.config import RateDistortionConfig, TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig(
    stage="hvs_sd",
    # At 11 crops a second, a run that is killed repeats three minutes of work at most.
    checkpoint_every_steps=500,
    hvs_sd=RateDistortionConfig(
      channels=64,  # a quarter of the arithmetic of the paper's 128
      num_steps=5_000,
      # Convolutions learn from small crops what they do to images of any size. SSIMULACRA 2 needs
      # at least 113.
      crop_px=128,
      batch_size=4,  # each crop with two distorted copies
      learning_rate=5e-4,  # at the end of the warm-up; it falls to a hundredth of that
      # The first gradients have norms of thousands, later ones of tens, and would rule Adam's
      # moments for long.
      clip_norm=5.0,
      # The exported average follows the last thousand steps.
      ema_decay=0.999,
      # How much detail the model of vision keeps: 28.3 dB at 0.91 bits per pixel on Kodak.
      rate_distortion_lambda=1024.0,
      # How much the order of the copies counts; with 4, distances followed visibility less.
      ordering_weight=25.0,
    ),
  )
