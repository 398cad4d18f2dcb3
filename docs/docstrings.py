"""Griffe extension: shows formulas and tables in docstrings as they are written."""

import re
from typing import Any

import griffe

# A paragraph indented by two. The contents of "Args:" and the like are not matched, because no
# empty line stands before them.
_BLOCK = re.compile(r"(?<=\n\n)(?:  .*(?:\n|$))+(?=\n|$)")


class Formulas(griffe.Extension):
  """Turns indented paragraphs into code blocks, since Markdown would join their lines."""

  def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
    if obj.docstring is not None:
      obj.docstring.value = _BLOCK.sub(
        lambda block: re.sub("^(?=  )", "  ", block[0], flags=re.MULTILINE), obj.docstring.value
      )

  def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
    self.on_object(obj=pkg)
