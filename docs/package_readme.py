"""The README as a package index shows it, where links into the repository would lead nowhere.

With an address in [project.urls] Source they become addresses below it. Without, a page is named in place of a link to
it, as the source archive has it, and pictures are left out.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

ROOT = Path(__file__).parents[1]
PICTURES = (".png", ".svg")
LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")
PICTURE = re.compile(r"!" + LINK.pattern + r"\n*")
ABOUT = "\nPages named `docs/….md` are in the source archive: `pip download --no-deps --no-binary :all: {name}`.\n"


class PackageReadme(MetadataHookInterface):
    """Fills the field `readme` of the package's metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds the text."""
        text, source = (ROOT / "README.md").read_text(encoding="utf-8"), metadata.get("urls", {}).get("Source")
        text = with_addresses(text, source) if source else with_names(text, metadata["name"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def with_addresses(text: str, source: str) -> str:
    """Markdown with `](docs/data.md)` as `](SOURCE/blob/main/docs/data.md)`, and pictures as files."""

    def address(link: re.Match[str]) -> str:
        kind = "raw" if link[2].endswith(PICTURES) else "blob"
        return f"[{link[1]}]({source}/{kind}/main/{link[2]})"

    return LINK.sub(address, text)


def with_names(text: str, name: str) -> str:
    """Markdown with `[Data](docs/data.md)` as ``Data (`docs/data.md`)``, and without pictures."""
    return LINK.sub(r"\1 (`\2`)", PICTURE.sub("", text)) + ABOUT.format(name=name)
