"""What several families have in common."""

from engine.models.convolutions import Dense
from engine.models.layer import Layer
from engine.models.pools import GlobalAveragePool


def round_to_eights(channels: float, most_lost: float = 0.1) -> int:
    """The multiple of 8 nearest to a number of channels; the next one up where that loses more than such a share."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < (1 - most_lost) * channels else rounded


def averaged_top(num_classes: int | None) -> tuple[Layer, ...]:
    """The mean of each channel and one output a class, as Keras names them."""
    return GlobalAveragePool(name="avg_pool"), Dense(num_classes, name="predictions")
