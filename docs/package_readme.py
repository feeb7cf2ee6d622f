"""The README as a package index shows it: links into the repository become addresses below [project.urls] Source."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

ROOT = Path(__file__).parents[1]
PICTURES = (".png", ".svg")


class PackageReadme(MetadataHookInterface):
    """Fills the field `readme` of the package's metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds the text."""
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": with_addresses(text, metadata["urls"]["Source"])}


def with_addresses(text: str, source: str) -> str:
    """Markdown with `](docs/data.md)` as `](SOURCE/blob/main/docs/data.md)`, and pictures as files."""

    def address(link: re.Match[str]) -> str:
        kind = "raw" if link[1].endswith(PICTURES) else "blob"
        return f"]({source}/{kind}/main/{link[1]})"

    return re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", address, text)
