"""MkDocs hook: adds pages from elsewhere in the repository, and adapts links to the site.

README.md is the front page. In the sources, links lead through the repository, so that they work
on GitHub. On the site, a link to a file leads to the page made of that file, a link to a module
leads to its reference, and a link to a file without a page becomes plain text.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

# Pages outside docs/, which have the same path on the site.
_PATTERNS = (
  *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "notebooks/*.ipynb"),
  *(f"hvsjnd_jax/assets/{name}/README.md" for name in ("default", "fast", "paper")),
)
_PAGES = tuple(
  str(file.relative_to(ROOT)) for pattern in _PATTERNS for file in sorted(ROOT.glob(pattern))
)


def on_config(config: MkDocsConfig) -> None:
  """Expands patterns in the menu to the pages that match; drops those that match none."""
  menu = config.nav or []
  for entry in list(menu):
    if isinstance(entry, dict) and "*" in (pattern := next(iter(entry.values()))):
      (title,) = entry
      entry[title] = [place for place in _PAGES if Path(place).match(pattern)]
      if not entry[title]:
        menu.remove(entry)


# Runs before mkdocs-jupyter, which looks for notebooks among the files.
@event_priority(100)
def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Adds the pages from outside docs/."""
  for place in _PAGES:
    files.append(File(place, str(ROOT), config.site_dir, config.use_directory_urls))
  return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
  """Rewrites each link to where its file is on the site."""
  folder = Path(str(page.file.abs_src_path)).parent

  def rewrite(link: re.Match[str]) -> str:
    text, target, anchor = link.groups()
    if not target or ":" in target:
      return link[0]
    file = os.path.relpath(folder / target, ROOT)
    for place in (file, file.removeprefix("docs/"), _REFERENCE.get(file, file)):
      found = files.get_file_from_path(place)
      if found is not None and found.inclusion.is_included():
        return f"[{text}]({os.path.relpath(place, Path(page.file.src_uri).parent)}{anchor})"
    return text if (ROOT / file).exists() else link[0]  # MkDocs complains of the latter

  return re.sub(r"\[([^\]]*)\]\(([^)#\s]*)((?:#[^)\s]*)?)\)", rewrite, markdown)


def _find_reference() -> dict[str, str]:
  """Maps each module's file to the page of docs/api/ that documents it."""
  pages = {}
  for page in sorted((ROOT / "docs/api").glob("*.md")):
    for module in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE):
      pages[module.replace(".", "/") + ".py"] = f"api/{page.name}"
  return pages


_REFERENCE = _find_reference()
