"""The end of several processes: which of them says why."""

from typing import Any

import pytest

from engine.processes import ends


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
        (0, 143, False, True), (0, 130, True, True),  # another was first: it does not speak
        (1, 143, False, False), (1, 130, True, False),
        (0, 2, False, True), (1, 2, False, True),  # the trouble of this process
        (1, 2, True, False), (0, 75, True, False),
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
