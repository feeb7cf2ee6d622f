"""The order of the parameters of a loss or metric of the user's own."""

import numpy as np
import pytest

from engine.errors import InputError
from engine.metrics.own_order import check_order


def test_only_names_in_the_order_of_keras_are_refused():
    for function in (lambda outputs, targets: 0, lambda a, b: 0, lambda labels: 0, lambda y_pred, y_true: 0, np.add):
        check_order("train.loss", function)
    with pytest.raises(InputError, match="expected outputs first, then targets"):
        check_order("train.loss", lambda labels, logits: 0)
