"""Everything printed goes through here: commands, runs, notes and errors.

With any locale, terminal or pipe: printing never raises UnicodeEncodeError, only our own styles control the terminal,
and output to a file or pipe depends neither on the width of a terminal nor on the length of a path.
"""

import io
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import IO, Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console as RichConsole
from rich.console import ConsoleDimensions, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text

from engine.host.html import html_table
from engine.text import encodable, one_line, printable

UNBOUNDED = 100_000  # columns of anything but a terminal: nothing is wrapped or cut there
LEAST_PATH = 12  # columns that a shortened text keeps at least


class Console(RichConsole):
    """A rich console that shows texts as they are: no markup, no emoji codes, no control characters."""

    def __init__(self, file: IO[str] | None = None, stderr: bool = False, quiet: bool = False, plain: bool = False):
        """plain: no colours and no width, whatever the file is; in a notebook the file too, and no output of a cell."""
        styles: dict[str, Any] = (
            {"force_terminal": False, "force_jupyter": False, "color_system": None} if plain else {}
        )
        super().__init__(file=file, stderr=stderr, quiet=quiet, highlight=False, markup=False, emoji=False, **styles)
        if not self.is_terminal and not self.is_jupyter:
            self.size = ConsoleDimensions(UNBOUNDED, 25)

    def fitted(self, text: str) -> str:
        """A text in characters that this console can show."""
        return encodable(printable(text), self.encoding)

    def render_str(self, text: str, **how: Any) -> Text:
        """A text of a table's cell, a title or a line, before its width is measured."""
        return super().render_str(self.fitted(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As in rich, with every text escaped, wherever it comes from."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=self.fitted(segment.text))


class Shortened:
    """A path or title: shown whole if there is room, otherwise with … in its middle. Never wrapped."""

    def __init__(self, text: str, style: str = "", room: int = LEAST_PATH):
        self.text, self.style, self.room = one_line(text), style, room

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        mark = console.fitted("…") if isinstance(console, Console) else "…"
        line = shortened(self._shown(console), options.max_width, mark)
        yield Text(line, self.style, no_wrap=True, overflow="ignore", end="\n")

    def __rich_measure__(self, console: RichConsole, options: ConsoleOptions) -> Measurement:
        width = cell_len(self._shown(console))
        return Measurement(min(width, self.room), width).with_maximum(options.max_width)

    def _shown(self, console: RichConsole) -> str:
        return console.fitted(self.text) if isinstance(console, Console) else self.text


class Table(RichTable):
    """A table with a heading and a footnote that are never wrapped, even if they are wider than the table."""

    def __init__(self, *headers: str, heading: str = "", footnote: str = "", **how: Any):
        super().__init__(*headers, **how)
        self.heading, self.footnote = heading, footnote

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        if self.heading:
            yield Shortened(self.heading, "table.title")
        yield from super().__rich_console__(console, options)
        if self.footnote:
            yield Text(self.footnote, "table.caption")

    def __str__(self) -> str:
        return as_text(self).rstrip("\n")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **options: Any) -> dict[str, str]:
        headers = [_plain(column.header) for column in self.columns]
        rows = zip(*([_plain(cell) for cell in column.cells] for column in self.columns), strict=True)
        return {"text/plain": str(self), "text/html": html_table(headers, rows, self.heading, self.footnote)}


def _plain(cell: Any) -> str:
    """The text of a table's cell."""
    return cell.text if isinstance(cell, Shortened) else cell.plain if isinstance(cell, Text) else str(cell)


def shortened(text: str, width: int, mark: str = "…") -> str:
    """A text of at most `width` columns; of a longer one, the middle is replaced by the mark."""
    if cell_len(text) <= width:
        return text
    room = max(width - len(mark), 0)
    head = room // 3  # the end matters more: it names the file, the start names the disk
    tail = room - head
    return set_cell_size(text, head) + mark + set_cell_size(text[::-1], tail)[::-1]


def show(*renderables: Any) -> None:
    """Prints texts and tables as a command's output."""
    console = Console()
    for renderable in renderables:
        console.print(renderable, soft_wrap=isinstance(renderable, str))


def tell(text: str) -> None:
    """Reports on stderr what is not part of a command's output."""
    Console(stderr=True).print(text, soft_wrap=True)


def warn(text: str) -> None:
    """Python warning, for functions that have no `say` to report to."""
    warnings.warn(printable(text), stacklevel=3)


def as_text(renderable: Any) -> str:
    """A table as lines of text."""
    lines = io.StringIO()
    Console(file=lines, plain=True).print(renderable)
    return lines.getvalue()


def open_standard_streams() -> None:
    """Connects those of this process's standard streams to nothing that are closed, as in some services.

    Otherwise the next file that is opened becomes one of them, and what libraries of C print is written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115


def harden_streams(arguments: Sequence[str]) -> None:
    """Makes this process's own streams safe for what libraries print: no text fails because of its encoding.

    The parser of options repeats its arguments. If these contain control characters (from a file name that a pattern
    matched), all control characters are escaped, so there are no colours and live lines.
    """
    open_standard_streams()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            if any(printable(argument) != argument for argument in arguments):
                setattr(sys, name, _Escaped(stream))


class _Escaped(io.TextIOBase):
    """A text stream that escapes control characters."""

    def __init__(self, stream: io.TextIOWrapper):
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def write(self, text: str) -> int:  # type: ignore[override]
        self._stream.write(printable(text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()
