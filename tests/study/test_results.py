"""Participants' files: what is broken, hostile or another study's is named in one line."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvsjnd_jax.study.design import identify, validate
from hvsjnd_jax.study.results import ResultError, find_results, read_result, read_results
from hvsjnd_jax.study.screening import find_fault
from tests.support.observers import Observer, make_design, read_back, take_part

DESIGN = make_design(repeats=1)


@pytest.fixture
def record() -> dict[str, Any]:
  return take_part(DESIGN, Observer(lambda image, model: 5.0, lapse=0), code="P1", seed=0)


def write(file: Path, record: dict[str, Any]) -> Path:
  file.write_text(json.dumps(record))
  return file


def test_a_sound_file(record: dict[str, Any], tmp_path: Path):
  result = read_result(write(tmp_path / "a.json", record))
  assert result.design == DESIGN
  assert len(result.trials) == len(DESIGN.lmbdas) + DESIGN.traps + DESIGN.practice


def test_javascript_s_numbers_do_not_change_the_study(record: dict[str, Any], tmp_path: Path):
  """JSON.stringify writes 2.0 as 2."""
  text = json.dumps(record).replace(".0,", ",").replace(".0]", "]").replace(".0}", "}")
  assert '"lmbdas": [1, 2, 3, 4, 6,' in text
  (tmp_path / "a.json").write_text(text)
  assert read_result(tmp_path / "a.json").study == identify(DESIGN)


def set_in(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
  """Makes a change of the value at a path of keys and indices."""

  def change(record: dict[str, Any]) -> None:
    at: Any = record
    for key in path[:-1]:
      at = at[key]
    at[path[-1]] = to

  return change


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
  "huge number": (set_in("trials", 3, "reaction_ms", to=10**400), "reaction_ms"),
  "negative time": (set_in("trials", 3, "reaction_ms", to=-1), ">= 0"),
  "text for a number": (set_in("trials", 3, "lmbda", to="4"), "got `str`"),
  "number for text": (set_in("trials", 3, "answer", to=1), "got `int`"),
  "no such side": (set_in("trials", 3, "answer", to="up"), "Invalid enum value 'up'"),
  "a list for an object": (set_in("screen", to=[]), "got `array`"),
  "an unknown field": (set_in("admin", to=True), "unknown field `admin`"),
  "a missing field": (lambda record: record.pop("screen"), "missing required field `screen`"),
  "a code that is a path": (set_in("participant", to="../../x"), "matching regex"),
  "a code of markup": (set_in("participant", to="<script>"), "matching regex"),
  "a code of two lines": (set_in("participant", to="P1\n"), "matching regex"),
  "a name that commands the terminal": (
    set_in("design", "images", 0, "name", to="\x1b[2J"),
    "matching regex",
  ),
  "another version": (set_in("version", to=2), "Invalid enum value 2"),
  "another format": (set_in("format", to="x"), "Invalid enum value 'x'"),
  "a changed design": (set_in("design", "repeats", to=2), "its design was changed"),
  "a forged id": (set_in("study", to="0" * 16), "its design was changed"),
  "not finished": (set_in("finished", to=False), "not finished: ends after 25 trials"),
  "a lmbda that was not shown": (set_in("trials", -1, "lmbda", to=33), "is no main trial"),
  "an image that was not shown": (set_in("trials", -1, "image", to="z"), "'z' with lmbda"),
  "a trap of a small lmbda": (set_in("trials", 6, "lmbda", to=1), "is no trap trial"),
  "a trial twice": (lambda r: r["trials"].append(r["trials"][-1]), "was shown 1 times"),
  "a trial too few": (lambda r: r["trials"].pop(), "was shown 1 times"),
  "a trap too few": (lambda r: r["trials"].pop(6), "9 traps, but its study has 10"),
  "a plate too few": (lambda r: r["plates"].pop(), "5 plates, but its study has 6"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named(what: str, record: dict[str, Any], tmp_path: Path):
  change, reason = DAMAGE[what]
  change(record)
  with pytest.raises(ResultError) as raised:
    read_result(write(tmp_path / "a.json", record))
  assert reason in str(raised.value)
  assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
  ("data", "reason"),
  [
    (b"", "damaged: no JSON"),
    (b"{", "damaged: no JSON"),
    (b"\xff\xfe\x00", "damaged: no JSON"),
    (b"[" * 200_000, "got `array`"),
    (b"null", "got `null`"),
    (b'{"format": NaN}', "damaged: no JSON"),
    (b'{"format": "hvsjnd_jax study result", "version": 1e999}', "out of range|got `float`"),
  ],
  ids=["empty", "cut", "binary", "deep", "null", "nan", "infinite"],
)
def test_what_is_no_json(data: bytes, reason: str, tmp_path: Path):
  (tmp_path / "a.json").write_bytes(data)
  with pytest.raises(ResultError, match=reason):
    read_result(tmp_path / "a.json")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_no_number_is_not_finite(value: str, record: dict[str, Any], tmp_path: Path):
  record["trials"][3]["reaction_ms"] = "HERE"
  (tmp_path / "a.json").write_text(json.dumps(record).replace('"HERE"', value))
  with pytest.raises(ResultError):
    read_result(tmp_path / "a.json")


def test_every_truncation_is_named(record: dict[str, Any], tmp_path: Path):
  data = json.dumps(record).encode()
  for length in range(0, len(data), 97):
    (tmp_path / "a.json").write_bytes(data[:length])
    with pytest.raises(ResultError, match="damaged: no JSON"):
      read_result(tmp_path / "a.json")


def test_files_that_are_none(tmp_path: Path):
  os.mkfifo(tmp_path / "pipe.json")
  large = tmp_path / "large.json"
  with large.open("wb") as file:
    file.truncate(2**30)
  for file, reason in ((tmp_path / "pipe.json", "not a regular file"), (large, "1073741824 bytes")):
    with pytest.raises(ResultError, match=reason):
      read_result(file)


def test_one_study_and_each_participant_once(record: dict[str, Any], tmp_path: Path):
  for name in ("a", "b", "c"):
    write(tmp_path / f"{name}.json", record | {"participant": "P9" if name == "c" else "P1"})
  other = make_design(repeats=2)
  stranger = take_part(other, Observer(lambda image, model: 5.0), code="P3", seed=0)
  write(tmp_path / "0_stranger.json", stranger)
  read = read_results(find_results([tmp_path, tmp_path / "a.json"]))
  assert [file.name for file in read.files] == ["a.json", "c.json"]
  assert read.design == DESIGN
  reasons = {problem.path.name: problem.reason for problem in read.problems}
  assert reasons.keys() == {"0_stranger.json", "b.json"}
  assert reasons["b.json"] == f"participant P1 is in {tmp_path / 'a.json'} already"
  assert reasons["0_stranger.json"].startswith(f"belongs to another study, {identify(other)}")


def test_nothing_usable(tmp_path: Path):
  with pytest.raises(ResultError, match="no such file or folder"):
    find_results([tmp_path / "none"])
  with pytest.raises(ResultError, match=r"no \.json file in"):
    find_results([tmp_path])
  (tmp_path / "a.json").touch()
  with pytest.raises(ResultError, match=r"none of 1 files can be used; .*a\.json: damaged"):
    read_results(find_results([tmp_path]))


def test_staircases_are_checked(tmp_path: Path):
  design = make_design(method="staircase", longest_staircase=20)
  record = take_part(design, Observer(lambda image, model: 5.0), code="P1", seed=0)
  assert len(read_result(write(tmp_path / "a.json", record)).trials) <= 20 + 15
  short = copy.deepcopy(record)
  short["trials"] = [trial for trial in short["trials"] if trial["kind"] != "main"]
  record["trials"] += [record["trials"][-1]] * 20
  for wrong in (short, record):
    with pytest.raises(ResultError, match="a staircase is missing, or longer"):
      read_result(write(tmp_path / "a.json", wrong))


def test_screening(record: dict[str, Any]):
  assert find_fault(read_back(record)) is None
  cheater = take_part(DESIGN, Observer(lambda image, model: 1, blind=True), code="P2", seed=1)
  fault = find_fault(read_back(cheater))
  assert fault is not None
  assert fault.endswith("of 10 traps; at most 1 are forgiven")
  for misread, left_out in ((1, False), (2, True)):
    observer = Observer(lambda image, model: 5.0, lapse=0, misread=misread)
    fault = find_fault(read_back(take_part(DESIGN, observer, code="P3", seed=0)))
    assert (fault is not None) == left_out


def test_designs_out_of_range():
  with pytest.raises(ValueError, match="traps"):
    validate(make_design(traps=5))
  assert validate(DESIGN) == DESIGN
