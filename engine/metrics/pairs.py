"""How often each class was taken for each: only the pairs that occurred, since a table of 10,000 classes is 800 MB."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Pairs:
    """Counts of (class, what it was taken for): at most as many as there are examples, whatever k² is.

    rows, columns: int64[p], class indices in order of rows, then columns. counts: float64[p], none of them 0.
    """

    num_classes: int
    rows: np.ndarray
    columns: np.ndarray
    counts: np.ndarray

    @property
    def table(self) -> np.ndarray:
        """float64[k k], a row for what an example is, a column for what it was taken for."""
        table = np.zeros((self.num_classes, self.num_classes))
        table[self.rows, self.columns] = self.counts
        return table

    def row(self, k: int) -> np.ndarray:
        """float64[k]: a row of the table."""
        first, last = np.searchsorted(self.rows, (k, k + 1))
        row = np.zeros(self.num_classes)
        row[self.columns[first:last]] = self.counts[first:last]
        return row

    def among(self, classes: np.ndarray) -> np.ndarray:
        """float64[s s]: the part of the table for some classes, in their order."""
        return np.stack([self.row(int(k))[classes] for k in classes])

    @property
    def right(self) -> np.ndarray:
        """float64[k]: how often each class was taken for itself."""
        is_right = self.rows == self.columns
        return self._add_up(self.rows[is_right], self.counts[is_right])

    @property
    def of_class(self) -> np.ndarray:
        """float64[k]: how many examples are of each class."""
        return self._add_up(self.rows, self.counts)

    @property
    def as_class(self) -> np.ndarray:
        """float64[k]: how many examples were taken for each class."""
        return self._add_up(self.columns, self.counts)

    def _add_up(self, classes: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return np.bincount(classes, counts, self.num_classes)


def count_pairs(labels: np.ndarray, guesses: np.ndarray, weights: np.ndarray | None, num_classes: int) -> Pairs:
    """The Pairs of classes int[n] and what they were taken for, int[n]; weights: float[n], 1 each where None."""
    counted = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    cells, places = np.unique(labels.astype(np.int64) * num_classes + guesses, return_inverse=True)
    counts = np.bincount(places, counted, len(cells))
    kept = counts > 0
    rows, columns = np.divmod(cells[kept], num_classes)
    return Pairs(num_classes, rows, columns, counts[kept])


def as_pairs(table: np.ndarray | Pairs) -> Pairs:
    """The Pairs of a table [k k]."""
    if isinstance(table, Pairs):
        return table
    rows, columns = np.nonzero(table)
    return Pairs(len(table), rows, columns, np.asarray(table, np.float64)[rows, columns])
