"""What a notebook shows while a run trains: tables, and one line of progress that is updated in place."""

import time
from typing import Any

from engine.host.html import html_text

LEAST_SECONDS = 0.25  # between two updates, each of which is a message to a browser


class NotebookLine:
    """A bar and a text in the output of the cell, updated in place."""

    def __init__(self):
        self._handle, self._last = display_html("", has_handle=True), 0.0

    def show(self, text: str, done: int, total: int) -> None:
        """Shows the text beside a bar of `done` of `total`; too soon after the last time, nothing."""
        if time.monotonic() - self._last < LEAST_SECONDS:
            return
        self._last = time.monotonic()
        self._update(f'<progress value="{done:d}" max="{total:d}"></progress> <code>{html_text(text)}</code>')

    def close(self) -> None:
        """Leaves an empty line."""
        self._update("")

    def _update(self, html: str) -> None:
        from IPython.display import HTML

        self._handle.update(HTML(html))


def display_html(html: str, has_handle: bool) -> Any:
    """Shows HTML in the output of the cell; the handle by which it can be updated."""
    from IPython.display import HTML, display

    return display(HTML(html), display_id=has_handle)


def show_in_notebook(shown: Any) -> None:
    """Shows what represents itself, as a table does by HTML."""
    from IPython.display import display

    display(shown)
