"""Both stages, one after the other: the first of three runs that made the default weights.

python -m hvsjnd_jax.train --config configs/default.py --workdir D --config.data.images=PHOTOS

Cost: 43 minutes on one CPU core. configs/hvs_sd.py and configs/jnd.py train one stage alone; they
give the reason for each value, and the cost and result of each stage. configs/jnd.py tells how the
second and the third run went on.
"""

from hvsjnd_jax.training.config import JNDConfig, RateDistortionConfig, TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig(
    stage="both",
    checkpoint_every_steps=500,
    hvs_sd=RateDistortionConfig(
      channels=64,
      num_steps=5_000,
      crop_px=128,
      batch_size=4,
      learning_rate=5e-4,
      clip_norm=5.0,
      ema_decay=0.999,
      rate_distortion_lambda=1024.0,
      ordering_weight=25.0,
    ),
    jnd=JNDConfig(
      priors=True,
      num_steps=2_000,
      crop_px=320,
      batch_size=1,
      learning_rate=1e-3,
      clip_norm=5.0,
      ema_decay=0.995,
      resolution="fine",
      attention_layer="reconstruction",
      generator_channels=32,
      noise="psnr",
      min_psnr=29.5,
      max_psnr=36.5,
      own_signs=0.9,
      butteraugli_weight=1.0,
      peaks_weight=0.7,
      ssimulacra2_weight=1.0,
      jod_weight=0.25,
      structure_weight=0.3,
      departure_weight=0.05,
    ),
  )
