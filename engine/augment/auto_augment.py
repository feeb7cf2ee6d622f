"""AutoAugment: one of 25 pairs of operations that a search found for a data set, each with its own probability."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from engine.augment.config import AugmentConfig
from engine.augment.policies import INVERT, OPERATIONS, RAND_AUGMENT, apply_operation

MAGNITUDES = 9  # counted from 0

# Cubuk et al. 2018, arXiv 1805.09501, appendix: operation, probability in tenths and magnitude, - where it has none.
TABLES: dict[str, str] = {
    "imagenet": """
        posterize 4 8, rotate 6 9; solarize 6 5, autocontrast 6 -; equalize 8 -, equalize 6 -;
        posterize 6 7, posterize 6 6; equalize 4 -, solarize 2 4; equalize 4 -, rotate 8 8; solarize 6 3, equalize 6 -;
        posterize 8 5, equalize 10 -; rotate 2 3, solarize 6 8; equalize 6 -, posterize 4 6; rotate 8 8, saturation 4 0;
        rotate 4 9, equalize 6 -; equalize 0 -, equalize 8 -; invert 6 -, equalize 10 -; saturation 6 4, contrast 10 8;
        rotate 8 8, saturation 10 2; saturation 8 8, solarize 8 7; sharpness 4 7, invert 6 -; shear_x 6 5,
        equalize 10 -;
        saturation 4 0, equalize 6 -; equalize 4 -, solarize 2 4; solarize 6 5, autocontrast 6 -;
        invert 6 -, equalize 10 -; saturation 6 4, contrast 10 8; equalize 8 -, equalize 6 -
    """,
    "cifar10": """
        invert 1 -, contrast 2 6; rotate 7 2, translate_x 3 9; sharpness 8 1, sharpness 9 3;
        shear_y 5 8, translate_y 7 9;
        autocontrast 5 -, equalize 9 -; shear_y 2 7, posterize 3 7; saturation 4 3, brightness 6 7;
        sharpness 3 9, brightness 7 9; equalize 6 -, equalize 5 -; contrast 6 7, sharpness 6 5;
        saturation 7 7, translate_x 5 8; equalize 3 -, autocontrast 4 -; translate_y 4 3, sharpness 2 6;
        brightness 9 6, saturation 2 8; solarize 5 2, invert 0 -; equalize 2 -, autocontrast 6 -;
        equalize 2 -, equalize 6 -;
        saturation 9 9, equalize 6 -; autocontrast 8 -, solarize 2 8; brightness 1 3, saturation 7 0;
        solarize 4 5, autocontrast 9 -; translate_y 9 9, translate_y 7 9; autocontrast 9 -, solarize 8 3;
        equalize 8 -, invert 1 -; translate_y 7 9, autocontrast 9 -
    """,
    "svhn": """
        shear_x 9 4, invert 2 -; shear_y 9 8, invert 7 -; equalize 6 -, solarize 6 6; invert 9 -, equalize 6 -;
        equalize 6 -, rotate 9 3; shear_x 9 4, autocontrast 8 -; shear_y 9 8, invert 4 -; shear_y 9 5, solarize 2 6;
        invert 9 -, autocontrast 8 -; equalize 6 -, rotate 9 3; shear_x 9 4, solarize 3 3; shear_y 8 8, invert 7 -;
        equalize 9 -, translate_y 6 6; invert 9 -, equalize 6 -; contrast 3 3, rotate 8 4; invert 8 -, translate_y 0 2;
        shear_y 7 6, solarize 4 8; invert 6 -, rotate 8 4; shear_y 3 7, translate_x 9 3; shear_x 1 6, invert 6 -;
        solarize 7 2, translate_y 6 7; shear_y 8 4, invert 8 -; shear_x 7 9, translate_y 8 3; shear_y 8 5,
        autocontrast 7 -;
        shear_x 7 2, invert 1 -
    """,
}


class Step(NamedTuple):
    """One operation of a pair; magnitude: 0 to MAGNITUDES, or None."""

    operation: str
    probability: float
    magnitude: int | None


def pairs(name: str) -> list[tuple[Step, ...]]:
    """The 25 pairs of a data set: imagenet, cifar10 or svhn."""
    return [tuple(_step(text) for text in pair.split(",")) for pair in TABLES[name].split(";")]


def auto_augment(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    """float32[h w c] after the two operations of a pair drawn for it, each done or not, strengths of random sign."""
    assert config.policy is not None
    table = pairs(config.policy.removeprefix("auto_augment_"))
    numbers = [
        [(_number(step.operation), step.probability, (step.magnitude or 0) / MAGNITUDES) for step in pair]
        for pair in table
    ]
    pair_key, chance_key, sign_key = jax.random.split(key, 3)
    pair = jnp.asarray(np.array(numbers, np.float32))[jax.random.randint(pair_key, (), 0, len(table))]  # [2 3]
    is_done = jax.random.uniform(chance_key, (2,)) < pair[:, 1]
    operations = jnp.where(is_done, pair[:, 0], OPERATIONS.index("identity")).astype(jnp.int32)
    strengths = pair[:, 2] * jax.random.rademacher(sign_key, (2,))
    how = (config.fill, config.fill_value, config.interpolation)

    def step(image: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return apply_operation(image, *drawn, RAND_AUGMENT, *how), None

    return lax.scan(step, image, (operations, strengths))[0]


def _step(text: str) -> Step:
    operation, tenths, magnitude = text.split()
    return Step(operation, int(tenths) / 10, None if magnitude == "-" else int(magnitude))


def _number(operation: str) -> int:
    return INVERT if operation == "invert" else OPERATIONS.index(operation)
