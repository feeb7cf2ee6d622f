"""Epoch: what is known of an epoch when it is over."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """A finished epoch: its row of the history, metrics on the validation data, number of images trained on.

    usual: of a sweep what Ensemble.usual_metrics returns.
    """

    row: dict[str, Any]
    validation: dict[str, Any]
    num_images: int
    usual: tuple[dict[str, Any], list[int]]
