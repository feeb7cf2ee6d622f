"""Sections → HTML: one file whose policy allows its own style and script, and nothing from anywhere else."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from engine.report.page.parts import Section
from engine.text import printable

HERE = Path(__file__).parent
MARK = '<meta name="generator" content="engine report">'
"""By which a later page knows that it may take the place of an earlier one."""
START_BYTES = 2_000  # within which the mark stands


def render_page(title: str, about: str, sections: Sequence[Section], left_out: Sequence[tuple[str, str]]) -> str:
    """The page. Every text is escaped, control characters too. left_out: (section, why)."""
    style, script = (Markup((HERE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)};"
        " base-uri 'none'; form-action 'none'"
    )
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, finalize=_printable,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("page.html.j2").render(
        title=title, about=about, sections=sections, left_out=left_out, policy=policy, style=style, script=script,
        mark=Markup(MARK),
    )  # fmt: skip


def is_our_page(path: Path) -> bool:
    """Whether a file is a page that was made here."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            return MARK.encode() in file.read(START_BYTES)
    except OSError:
        return False


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def _printable(value: Any) -> Any:
    return value if isinstance(value, Markup) or not isinstance(value, str) else printable(value)
