"""What a page is made of: sections of parts, each drawn by the template's block of its kind."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup

from engine.host.console import Shortened, Table

NUMBER = re.compile(r"[-+−]?[\d,.]+(e[-+]?\d+)?( ?%)?|nan|–|", re.ASCII)


class LeftOut(Exception):
    """Raised by a section that a run has nothing for; its text says why, for the end of the page."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Facts:
    """Names with values."""

    kind: ClassVar[str] = "facts"
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Rows:
    """A table that is sorted by a click on a heading."""

    kind: ClassVar[str] = "rows"
    label: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    @property
    def are_numbers(self) -> list[bool]:
        """Whether each column has nothing but numbers, which are written one below the other."""
        cells = zip(*self.rows, strict=True) if self.rows else [()] * len(self.columns)
        return [all(NUMBER.fullmatch(cell) for cell in column) for column in cells]


@dataclass(frozen=True)
class Chart:
    """A drawing. label: what it shows, in words. is_tall: it is scrolled. is_wide: nothing stands beside it."""

    kind: ClassVar[str] = "chart"
    label: str
    svg: Markup
    is_tall: bool = False
    is_wide: bool = False


@dataclass(frozen=True)
class Shown:
    """A picture. source: its data as an address. lines: below it. has_pixels: it is enlarged without smoothing."""

    source: str
    alt: str
    lines: Sequence[str] = ()
    is_wrong: bool = False
    has_pixels: bool = False
    beside: str = ""
    """A second picture, of the same size, behind it."""


@dataclass(frozen=True)
class Pictures:
    """Pictures beside each other. is_wide: each has a line of its own on a phone."""

    kind: ClassVar[str] = "pictures"
    label: str
    shown: Sequence[Shown]
    is_wide: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a matrix. shade: 0 to 10; key: of its pictures, "" where there are none."""

    text: str
    shade: int
    key: str = ""
    title: str = ""


@dataclass(frozen=True)
class Matrix:
    """A table of counts with the classes on both sides. pictures: by the key of a cell, shown at a click."""

    kind: ClassVar[str] = "matrix"
    label: str
    names: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    pictures: dict[str, list[Shown]] = field(default_factory=dict)


Part = Text | Facts | Rows | Chart | Pictures | Matrix


@dataclass(frozen=True)
class Section:
    """A heading with parts below it."""

    title: str
    parts: Sequence[Part]

    @property
    def anchor(self) -> str:
        """Its address within the page."""
        return self.title.lower().replace(" ", "-")


def rows_of(table: Table, label: str = "") -> Rows:
    """A table of the terminal as one of a page."""
    columns = [[_text(cell) for cell in column.cells] for column in table.columns]
    heads = [str(column.header) for column in table.columns]
    return Rows(label or table.heading, heads, list(zip(*columns, strict=True)), table.footnote)


def facts_of(table: Table) -> Facts:
    """A table of two columns as names with values."""
    names, values = ([_text(cell) for cell in column.cells] for column in table.columns)
    return Facts(list(zip(names, values, strict=True)))


def _text(cell: object) -> str:
    return cell.text if isinstance(cell, Shortened) else str(cell)
