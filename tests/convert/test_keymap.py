"""Names and layouts of parameters, without torch."""

import numpy as np
import pytest

from convert.keymap import BACKBONES, PARAMETERS, convert, relayout
from tests.support.golden_weights import draw_state


def test_layout_of_every_kind_of_parameter():
  conv = np.arange(2 * 3 * 5 * 7, dtype=np.float32).reshape(2, 3, 5, 7)  # OIHW
  converted = relayout(conv, "conv1.kernel")
  assert converted.shape == (5, 7, 3, 2)
  assert converted.flags.c_contiguous
  assert converted[4, 6, 2, 1] == conv[1, 2, 4, 6]
  assert converted[0, 1, 2, 0] == conv[0, 2, 0, 1]
  gamma = np.arange(6, dtype=np.float32).reshape(2, 3)
  np.testing.assert_array_equal(relayout(gamma, "gdn1.gamma"), gamma)
  np.testing.assert_array_equal(relayout(gamma, "fc.kernel"), gamma.T)
  per_channel = np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)
  np.testing.assert_array_equal(relayout(per_channel, "f1.h"), [0, 1, 2, 3])


@pytest.mark.parametrize("network", BACKBONES)
def test_every_parameter_of_a_backbone_has_a_place_of_its_own(network: str):
  paths = [path for path, _ in BACKBONES[network].values()]
  assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("network", PARAMETERS)
def test_every_parameter_has_a_place_of_its_own(network: str):
  state = draw_state(0, {key: shape for key, (_, shape) in PARAMETERS[network].items()})
  arrays, faults = convert(network, state)
  assert not faults
  assert len(arrays) == len(state)
  assert sum(array.size for array in arrays.values()) == sum(a.size for a in state.values())
