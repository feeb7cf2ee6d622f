"""Which examples are worth a look: mistakes of which the model was sure, and what it was unsure of."""

import numpy as np


def order_mistakes(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int[w]: the examples whose likeliest class is wrong, those that the model was surest of first.

    probabilities: [n k]. labels: int[n].
    """
    guesses = probabilities.argmax(1)
    wrong = np.flatnonzero(guesses != labels)
    return wrong[np.argsort(-probabilities[wrong, guesses[wrong]], kind="stable")]


def order_unsure(probabilities: np.ndarray) -> np.ndarray:
    """int[n]: the examples by the difference of their two likeliest classes, the least first."""
    if probabilities.shape[1] < 2:
        return np.arange(len(probabilities))
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.argsort(two[:, 1] - two[:, 0], kind="stable")


def mix_classes(indices: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same examples in another order: the first of each class, then the second of each, …"""
    turn = np.zeros(len(indices), int)
    for k in np.unique(labels[indices]):
        of_class = labels[indices] == k
        turn[of_class] = np.arange(of_class.sum())
    return indices[np.argsort(turn, kind="stable")]


def choose_shown(probabilities: np.ndarray, labels: np.ndarray, count: int, most_wrong: int) -> np.ndarray:
    """int[count or n]: examples to show, of as many classes as there are: mistakes first, then right answers."""
    wrong = mix_classes(order_mistakes(probabilities, labels), labels)[:most_wrong]
    is_shown_class = np.isin(labels, labels[wrong])
    right = np.flatnonzero(probabilities.argmax(1) == labels)
    others = right[np.argsort(is_shown_class[right], kind="stable")]
    return np.concatenate([wrong, mix_classes(others, labels)])[:count]
