"""Griffe extension: the docstrings' formulas and tables are shown as they are written."""

import re
from typing import Any

import griffe

# Lines indented by two, on their own: what "Args:" and the like hold follows without a gap.
_BLOCK = re.compile(r"(?<=\n\n)(?:  .*(?:\n|$))+(?=\n|$)")


class Formulas(griffe.Extension):
  """Makes code of indented blocks, which Markdown would run together."""

  def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
    if obj.docstring is not None:
      obj.docstring.value = _BLOCK.sub(
        lambda block: re.sub("^(?=  )", "  ", block[0], flags=re.MULTILINE), obj.docstring.value
      )

  def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
    self.on_object(obj=pkg)
