"""What `make test-all` does more than `make test`: further cases, and more examples of properties."""

from collections.abc import Iterable
from typing import Any

import pytest

is_all = False
"""Whether tests marked `long` run too: set by conftest.py before any test is collected."""


def further(cases: Iterable[Any]) -> list[Any]:
    """Parameters of a parametrized test that only `make test-all` has: each shows again what the others show."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long) for case in cases]


def choose_examples(few: int, many: int) -> int:
    """How many examples of a property `make test` draws, and `make test-all`."""
    return many if is_all else few
