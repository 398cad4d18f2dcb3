"""MkDocs hook: brings pages in that stand elsewhere in the repository, and mends links.

On the pages links lead through the repository, so that they work where it is read. On the site
they lead to the page of the same file, a module's to its reference; a link to a file that has
no page becomes its text.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

# Pages that stand outside docs/, and are at the same path on the site.
_PATTERNS = (
  *("CHANGELOG.md", "CONTRIBUTING.md", "notebooks/*.ipynb"),
  *(f"hvsjnd_jax/assets/{name}/README.md" for name in ("default", "paper")),
)
_PAGES = tuple(
  str(file.relative_to(ROOT)) for pattern in _PATTERNS for file in sorted(ROOT.glob(pattern))
)


def on_config(config: MkDocsConfig) -> None:
  """Puts in the menu, for a pattern, the pages that match it; none, no entry."""
  for entry in list(config.nav or []):
    if isinstance(entry, dict) and "*" in (pattern := next(iter(entry.values()))):
      (title,) = entry
      entry[title] = [place for place in _PAGES if Path(place).match(pattern)]
      if not entry[title]:
        config.nav.remove(entry)


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Adds the pages from outside docs/."""
  for place in _PAGES:
    files.append(File(place, str(ROOT), config.site_dir, config.use_directory_urls))
  return files


# Before mkdocs-jupyter, which looks for notebooks among the files.
on_files.mkdocs_priority = 100


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
  """Leads each link to where its file is on the site."""
  folder = Path(str(page.file.abs_src_path)).parent

  def lead(link: re.Match[str]) -> str:
    text, target, anchor = link.groups()
    if not target or ":" in target:
      return link[0]
    file = os.path.relpath(folder / target, ROOT)
    module = re.sub(r"hvsjnd_jax/(.+)\.py", r"api/\1.md", file)
    for place in (file, file.removeprefix("docs/"), module):
      found = files.get_file_from_path(place)
      if found is not None and found.inclusion.is_included():
        return f"[{text}]({os.path.relpath(place, Path(page.file.src_uri).parent)}{anchor})"
    return text if (ROOT / file).exists() else link[0]  # of which MkDocs complains

  return re.sub(r"\[([^\]]*)\]\(([^)#\s]*)((?:#[^)\s]*)?)\)", lead, markdown)
