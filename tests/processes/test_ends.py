"""The end of several processes: which of them says why."""

import threading
from typing import Any

import pytest

from engine.processes import ends
from tests.conftest import HANG_SECONDS


class Ended(Exception):
    """In place of the end of the process."""


class Service:
    """A coordination service that another process has told of its end already, or none."""

    def __init__(self, is_told: bool):
        self.is_told = is_told

    def key_value_set(self, key: str, text: str) -> None:
        if self.is_told:
            raise RuntimeError("ALREADY_EXISTS")


@pytest.mark.parametrize(
    ("rank", "code", "is_told", "speaks"),
    [
        (0, 143, False, True), (1, 143, False, False), (1, 130, True, False),
        (0, 2, False, True), (1, 2, False, True), (1, 2, True, False),  # the trouble of this process, if it was first
    ],
)  # fmt: skip
def test_one_process_says_that_all_stop_and_each_its_own_trouble(
    rank: int, code: int, is_told: bool, speaks: bool, monkeypatch: pytest.MonkeyPatch
):
    said: list[str] = []

    def leave(code: int, message: str | None, say: Any) -> None:
        said.extend([message] if message else [])
        raise Ended(code)

    monkeypatch.setattr(ends, "_client", lambda: Service(is_told))
    monkeypatch.setattr(ends, "_rank", lambda: rank)
    monkeypatch.setattr(ends, "_leave", leave)
    with pytest.raises(Ended, match=str(code)):
        ends.end(code, "why", said.append)
    assert said == ["why"] * speaks


@pytest.mark.parametrize(("code", "expected"), [(2, "process 1: why"), (143, "why")])
def test_process_0_says_what_the_first_one_said(code: int, expected: str, monkeypatch: pytest.MonkeyPatch):
    """It waits in `end` for the thread that listens."""

    class Told(Service):
        def blocking_key_value_get(self, key: str, milliseconds: int) -> str:
            return f"{code}\n1\nwhy"

    said: list[str] = []
    left = threading.Event()

    def leave(found: int, message: str | None, say: Any) -> None:
        said.extend([f"{found}", message or ""])
        left.set()

    monkeypatch.setattr(ends, "_client", lambda: Told(is_told=True))
    monkeypatch.setattr(ends, "_rank", lambda: 0)
    monkeypatch.setattr(ends, "_leave", leave)
    for name in ("soften_abort", "leave_with_parent", "start_beating"):
        monkeypatch.setattr(ends, name, lambda *arguments: None)
    threading.Thread(target=ends.end, args=(2, "a consequence", said.append), daemon=True).start()
    ends.watch(said.append)
    assert left.wait(HANG_SECONDS)
    assert said == [str(code), expected]
