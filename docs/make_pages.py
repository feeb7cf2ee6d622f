"""What `mkdocs build` adds to the pages of docs/: README.md and its like, and one API page a room, from docstrings.

Both are made from what is there (files, the public names of engine and engine.models), so that no list is kept by hand.
"""

import os
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import engine
import engine.models

ROOT = Path(__file__).parents[1]
# File of the repository → page of the site.
ADDED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/NOTES.md": "notes.md",
}


def api_pages() -> dict[str, str]:
    """Page → its text: the public names of each room of engine/, under the room's title."""
    rooms: dict[str, list[str]] = {"models": [f"engine.models.{name}" for name in engine.models.__all__]}
    for name, home in engine._HOMES.items():
        if home != "engine.models":
            rooms.setdefault(home.split(".")[1], []).append(f"engine.{name}")
    return {
        f"api/{room}.md": f"# {room.capitalize()}\n\n" + "\n\n".join(f"::: {name}" for name in sorted(names))
        for room, names in sorted(rooms.items())
    }


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the API pages to the navigation."""
    assert config.nav is not None
    config.nav.insert(2, {"API": list(api_pages())})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that do not lie in docs/."""
    texts = {page: (ROOT / source).read_text("utf-8") for source, page in ADDED.items()} | api_pages()
    for page, text in texts.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page with its links between files of the repository turned into links between pages of the site."""
    sources = {page: source for source, page in ADDED.items()}
    folder = Path(sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")).parent

    def on_site(match: re.Match[str]) -> str:
        target = os.path.normpath(folder / match[1])
        return f"]({ADDED.get(target, os.path.relpath(target, 'docs'))}{match[2]}"

    return re.sub(r"\]\((?!\w+:|#)([^)#\s]+)([^)]*\))", on_site, markdown)


class Fields(griffe.Extension):
    """Lines of a docstring that describe an argument or field become a list of Markdown."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrites the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = list_fields(obj.docstring.value)


def list_fields(docstring: str) -> str:
    """Docstring with `name: …` and `name, other: …` as items of a list, apart from the text before and after them."""
    lines: list[str] = []
    was_field = False
    for line in docstring.splitlines():
        field = re.match(r"(\w+(?:, \w+)*): ", line)
        is_field = bool(field) or (was_field and line.startswith(" "))
        lines += [""] if is_field != was_field else []
        lines.append(f"- **{field[1]}**: {line[field.end() :]}" if field else line)
        was_field = is_field
    return "\n".join(lines)
