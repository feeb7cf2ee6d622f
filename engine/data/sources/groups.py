"""The groups that a column of a table puts its rows in."""

from typing import Any

import numpy as np

from engine.data.decoded.dataset import Dataset
from engine.data.sources.columns import Table
from engine.data.sources.rows import read_column


def with_groups(dataset: Dataset, table: Table, rows: Any) -> Dataset:
    """The dataset of some rows of a table, which index them all, with their groups if a column says some."""
    if table.group is None:
        return dataset
    return dataset.grouped(np.array(read_column(table, table.group))[rows], "data.group_column")
