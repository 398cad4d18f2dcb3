"""Stage 2 alone: the JND generator of the default weights, behind a frozen HVS-SD.

python -m hvsjnd_jax.train --config configs/jnd.py --workdir D --config.data.images=PHOTOS

Cost: 2,000 steps at 2.5 crops a second on one CPU core, 13 minutes. Result on 258 photographs: a
total of -1.88 over the last 500 steps, a sum of logarithms. The default weights then went on twice,
for 4,000 steps and for 8,000, by --config.jnd.hvs_sd=W --config.jnd.generator=W
--config.jnd.num_steps=N in other workdirs: 78 minutes on one core of a slower CPU, and 84 on one
of this kind beside other work. Their model card has the commands, and how well they hide noise.

HVS-SD is that of the same workdir; --config.jnd.hvs_sd=W takes that of other weights W, a
folder or shipped ones by name. --config.jnd.generator=W goes on from W's generator.
"""

from hvsjnd_jax.training.config import JNDConfig, TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig(
    stage="jnd",
    # A run that is killed repeats three minutes of work at most.
    checkpoint_every_steps=500,
    jnd=JNDConfig(
      priors=True,
      num_steps=2_000,
      # A crop that shows less of a photograph knows less of what else the noise could hide in.
      crop_px=320,
      batch_size=1,
      learning_rate=1e-3,  # at the end of the warm-up; it falls to a hundredth of that
      clip_norm=5.0,  # above the usual norm, of three
      # The exported average follows the last 200 steps: the noise's signs are drawn anew in
      # each, and each pulls the weights another way.
      ema_decay=0.995,
      resolution="fine",
      attention_layer="reconstruction",  # as the published code; the paper has "feature"
      generator_channels=32,
      # Noise of a drawn PSNR in each channel, from hardly seen to plainly seen.
      noise="psnr",
      min_psnr=29.5,
      max_psnr=36.5,
      # Where channels share signs, a checkerboard of colours looks good to models of vision and
      # has nothing to do with the image; so most noise has signs of each channel's own.
      own_signs=0.9,
      # Logarithms of what three models of vision see. JOD fall by half where the others fall by
      # a twentieth, and would rule the sum.
      butteraugli_weight=1.0,
      peaks_weight=0.7,
      ssimulacra2_weight=1.0,
      jod_weight=0.25,
      # Without it, noise gathers at edges, where the models of vision mind it less.
      structure_weight=0.3,
      # Without it, the mean of the correction drifts to its bound.
      departure_weight=0.05,
    ),
  )
