"""Stage 2 alone: the JND generator, behind the frozen HVS-SD of the same workdir.

python -m hvsjnd_jax.train --config configs/jnd.py --workdir D --config.data.images=PHOTOS

Cost: 600 steps at 6 crops a second on two CPU cores, 7 minutes. Result on 258 photographs:
total 0.079 over the last 50 steps; on Kodak, noise that hides better than that of classical
models at the same PSNR (the default weights' model card). --config.jnd.hvs_sd=W trains behind
the HVS-SD of other weights W, a folder or shipped ones by name.
"""

from hvsjnd_jax.training.config import JNDConfig, TrainConfig


def get_config() -> TrainConfig:
  return TrainConfig(
    stage="jnd",
    # At 6 crops a second, a run that is killed repeats six minutes of work at most.
    checkpoint_every_steps=500,
    jnd=JNDConfig(
      # Few are enough: the masking threshold draws the detail, and the generator scales it.
      num_steps=600,
      crop_px=176,  # that of the paper; MS-SSIM needs more than 160
      # Enough for two cores. All devices share a batch, so raise it where there are more of them.
      batch_size=4,
      learning_rate=1e-3,  # at the end of the warm-up; it falls to a hundredth of that
      # The first gradients are several times longer, and would rule Adam's moments.
      clip_norm=5.0,
      # The exported average follows the last ninth of the steps so far, and never more than
      # 1,000 of them.
      ema_decay=0.999,
      # The map is meant for noise of this scale: about 34 dB on Kodak.
      lmbda=10.0,
      # Half a masking threshold in each channel.
      magnitude_target=0.5,
      # Fixes how much noise there is, so that the other terms cannot be met by drawing none.
      magnitude_weight=1.0,
      # A tenfold weight was tried, and made the noise easier to see (docs/experiments.md).
      quality_weight=3.0,
      # It may gain about the difference between two seeds (docs/experiments.md).
      attention_weight=0.3,
      # Keeps the noise even in masking thresholds, so that no peaks stand out.
      visibility_weight=0.25,
      # The map times the masking threshold at each pixel. Without that factor butteraugli's
      # 3-norm of the noise is a third higher (docs/experiments.md).
      resolution="fine",
      # As the published code; the paper describes the other, "feature".
      attention_layer="reconstruction",
    ),
  )
