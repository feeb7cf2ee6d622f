"""Parts of HTML for notebooks. Every text in them is escaped; a notebook's own styles apply."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from engine.text import one_line


def html_text(text: object) -> str:
    """A text of anybody's on one line, escaped."""
    return escape(one_line(text))


def html_table(
    headers: Sequence[object], rows: Iterable[Sequence[object]], heading: str = "", footnote: str = ""
) -> str:
    """A table; numbers and what else starts with a digit stand to the right."""
    head = "".join(f"<th>{html_text(name)}</th>" for name in headers)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    caption = f"<caption>{html_text(heading)}</caption>" if heading else ""
    top = f"<thead><tr>{head}</tr></thead>" if any(headers) else ""
    return f"<table>{caption}{top}<tbody>{body}</tbody></table>{f'<p>{html_text(footnote)}</p>' if footnote else ''}"


def html_facts(title: str, facts: Mapping[str, object]) -> str:
    """A heading, and a line for each fact that is not empty."""
    rows = [(html_text(name), html_text(value)) for name, value in facts.items() if value not in (None, "", ())]
    lines = "".join(f'<tr><th>{name}</th><td style="text-align:left">{value}</td></tr>' for name, value in rows)
    return f"<p><b>{html_text(title)}</b></p><table><tbody>{lines}</tbody></table>"


def html_pictures(pngs: Sequence[bytes], titles: Sequence[object], pixels: int = 64) -> str:
    """Pictures in a row, each `pixels` high, with a title below it."""
    cells = zip(pngs, titles, strict=True)
    pictures = [
        f'<td style="text-align:center"><img height="{pixels}" style="image-rendering:pixelated"'
        f' alt="{html_text(title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<br>{html_text(title)}</td>"
        for png, title in cells
    ]
    return f"<table><tr>{''.join(pictures)}</tr></table>" if pictures else ""


def _cell(value: object) -> str:
    text = html_text(value)
    side = "right" if text[:1].isdigit() or text[:1] in ("-", "−") else "left"
    return f'<td style="text-align:{side}">{text}</td>'
