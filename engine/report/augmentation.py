"""Shows an augmentation: draws from one image, and a description in words."""

from collections.abc import Sequence
from dataclasses import fields

import jax
import jax.numpy as jnp
import numpy as np

from engine.augment.apply import augment_batch, example_keys
from engine.augment.config import AugmentConfig
from engine.augment.rules import MANNERS, find_marks
from engine.report.grid import PLACES

DRAWS = PLACES - 1
UNITS = {"noise": " levels", "blur": " pixels", "crop_padding": " pixels"}  # of other fields than ranges


def draws_of(
    image: np.ndarray, number: int, others: Sequence[tuple[np.ndarray, int]], seed: int, config: AugmentConfig
) -> tuple[list[np.ndarray], list[float]]:
    """(DRAWS images uint8[h w c], the share of the first image in each): an example as training sees it, by epoch.

    number: the example's number, which with `seed` and the epoch determines the draw.
    others: (image of the same shape, number) of the example mixed in for each draw; empty without mixing.
    """
    parties = [[(image, number), *others[draw : draw + 1]] for draw in range(DRAWS)]  # [d p]
    size = len(parties[0])
    images = np.stack([shown for party in parties for shown, _ in party])  # [dp h w c]
    numbers = np.array([[place for _, place in party] for party in parties], np.int32)

    @jax.jit
    def draw(images: jax.Array, numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = jax.vmap(lambda epoch, examples: example_keys(seed, epoch, examples))(jnp.arange(DRAWS), numbers)
        changed, share = augment_batch(keys.reshape(-1), images, config)  # [d p] → [dp]
        shares = jnp.ones(len(images)) if share is None else share
        return jnp.round(changed.clip(0, 255)).astype(jnp.uint8), shares

    changed, shares = draw(images, numbers)
    return list(np.asarray(changed[::size])), [float(share) for share in shares[::size]]


def augmentation_text(config: AugmentConfig) -> str:
    """The fields that have an effect, and how they act if that is not the default: `rotation -36 to 36°, …`."""
    default = AugmentConfig()
    manners = {name for name in MANNERS if getattr(config, name) != getattr(default, name)}
    shown = [field.name for field in fields(default) if config.changes(field.name) or field.name in manners]
    return ", ".join(_text(config, name) for name in shown)


def _text(config: AugmentConfig, name: str) -> str:
    value, words = getattr(config, name), name.replace("_", " ")
    if value is True:
        return words
    if name == "custom":
        return ", ".join(function.name for function in value)
    mark = find_marks(AugmentConfig).get(name)
    if mark and mark.is_range:
        value = config.range(name)
    elif mark:
        return f"{words} {value:.0%} of the time"
    if name == "erasing_value" and value is None:
        return f"{words} noise"
    if name.endswith("_steps"):
        return f"{words} {_listed(value)}"
    return f"{words} {_value_text(value)}{mark.unit if mark else UNITS.get(name, '')}"


def _listed(steps: tuple[float, ...]) -> str:
    """`0, 1, 2 or 5`; of a long list only the first and the last."""
    texts = [f"{step:g}" for step in (steps if len(steps) < 8 else (*steps[:3], steps[-1]))]
    joint = ", …, " if len(steps) >= 8 else " or "
    return joint.join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else texts[0]


def _value_text(value: object) -> str:
    if isinstance(value, tuple):
        return (" to " if len(value) == 2 else ", ").join(map(_value_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
