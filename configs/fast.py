"""The weights "fast": a generator that does without HVS-SD.

python -m hvsjnd_jax.train --config configs/fast.py --workdir D --config.data.images=PHOTOS

Cost: 6,000 steps in 97 minutes, on one core of a slower CPU than that of configs/jnd.py. Result on
258 photographs: a total of -1.86 over the last 500 steps. The weights "fast" then went on for 5,000
steps, as the default ones did; their model card has the commands. The values are those of
configs/jnd.py, which gives the reasons, but for steps and width.
"""

from hvsjnd_jax.training.config import JNDConfig, TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig(
    stage="jnd",
    checkpoint_every_steps=500,
    jnd=JNDConfig(
      priors=False,
      num_steps=6_000,
      crop_px=320,
      batch_size=1,
      learning_rate=1e-3,
      clip_norm=5.0,
      ema_decay=0.995,
      resolution="fine",
      # Half of the default's width costs a little quality, and saves nearly half of the time.
      generator_channels=16,
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
