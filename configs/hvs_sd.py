"""Stage 1 alone: HVS-SD as a rate-distortion autoencoder.

python -m hvsjnd_jax.train --config configs/hvs_sd.py --workdir D --config.data.images=PHOTOS

Cost: 7,000 steps at 16 crops a second on two CPU cores, 30 minutes. Result on 258
photographs: 30.7 dB at 1.14 bits per pixel over the last 500 steps, with noise on the
feature. Both were measured for the default weights (see their model card), which an earlier
trainer made, with other crops and noise.
"""

from hvsjnd_jax.training.config import RateDistortionConfig, TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig(
    stage="hvs_sd",
    # At 16 crops a second, a run that is killed repeats two minutes of work at most.
    checkpoint_every_steps=500,
    hvs_sd=RateDistortionConfig(
      num_steps=7_000,  # half an hour on two CPU cores
      # Convolutions learn from small crops what they do to images of any size.
      crop_px=128,
      # Enough for two cores. All devices share a batch, so raise it where there are more of them.
      batch_size=4,
      learning_rate=4e-4,  # at the end of the warm-up; it falls to a hundredth of that
      # The first gradients have norms of thousands, later ones of hundreds (configs/tiny.py), and
      # would rule Adam's moments for long.
      clip_norm=5.0,
      # The exported average follows the last ninth of the steps so far, and never more than
      # 1,000 of them.
      ema_decay=0.999,
      # How much detail the model of vision keeps: 1024 gives 30.7 dB at 1.14 bits per pixel.
      rate_distortion_lambda=1024.0,
    ),
  )
