"""Both stages, one after the other, with the settings of the default weights.

python -m hvsjnd_jax.train --config configs/default.py --workdir D --config.data.images=PHOTOS

Cost: about 40 minutes on two CPU cores. configs/hvs_sd.py and configs/jnd.py train one stage
alone; they give the reason for each value, and the cost and result of each stage.
"""

from hvsjnd_jax.training.config import JNDConfig, RateDistortionConfig, TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig(
    stage="both",
    checkpoint_every_steps=500,
    hvs_sd=RateDistortionConfig(
      num_steps=7_000,
      crop_px=128,
      batch_size=4,
      learning_rate=4e-4,
      clip_norm=5.0,
      ema_decay=0.999,
      rate_distortion_lambda=1024.0,
    ),
    jnd=JNDConfig(
      num_steps=600,
      crop_px=176,
      batch_size=4,
      learning_rate=1e-3,
      clip_norm=5.0,
      ema_decay=0.999,
      lmbda=10.0,
      magnitude_target=0.5,
      magnitude_weight=1.0,
      quality_weight=3.0,
      attention_weight=0.3,
      visibility_weight=0.25,
      resolution="fine",
      attention_layer="reconstruction",
    ),
  )
