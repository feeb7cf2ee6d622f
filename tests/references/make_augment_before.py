"""Made tests/references/augment_before.npz with the engine before it had Keras's own forms: never to be run again.

What augmentations of that time made of three pictures: a record of an old run must keep its meaning. The settings are
those of tests/augment/test_records.py.
"""

from pathlib import Path

import jax
import numpy as np

from engine.augment.apply import augment_batch, example_keys
from engine.augment.config import AugmentConfig
from tests.augment.test_records import OLD, pictures


def main() -> None:
    """Writes the changed pictures, and the shares of mixed examples."""
    kept = {}
    for name, fields in OLD.items():
        keys = example_keys(3, 1, np.arange(4))
        images, share = jax.jit(augment_batch, static_argnums=2)(keys, pictures(), AugmentConfig(**fields))
        kept[name] = np.asarray(images)
        if share is not None:
            kept[f"{name} share"] = np.asarray(share)
    np.savez_compressed(Path(__file__).with_name("augment_before.npz"), **kept)


if __name__ == "__main__":
    main()
