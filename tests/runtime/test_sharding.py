"""Which devices share a batch."""

from types import SimpleNamespace

import jax
import pytest

from hvsjnd_jax.runtime.sharding import choose_devices


@pytest.mark.parametrize(
  ("platform", "parts", "expected"),
  [("cpu", 64, 8), ("cpu", 12, 6), ("cpu", 11, 1), ("cpu", 3, 3), ("tpu", 12, 8)],
)
def test_as_many_devices_of_a_cpu_as_can_share_a_batch(
  platform: str, parts: int, expected: int, monkeypatch: pytest.MonkeyPatch
):
  devices = [SimpleNamespace(platform=platform) for _ in range(8)]
  monkeypatch.setattr(jax, "devices", lambda: devices)
  assert choose_devices(parts=parts) == devices[:expected]
