"""Looking into a classifier: features of its layers, Grad-CAM, and its weights by layer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine.config.data import ResizeRule
from engine.config.decoding import ValueRange
from engine.data.arrays.stored import StoredImages
from engine.data.pictures.images import Picture

if TYPE_CHECKING:
    from engine.inference.explain import Explanation, Of
    from engine.inference.single import SingleClassifier


class Looking(ABC):
    """What shows how a classifier comes to its answers. pictures, resize, value_range: as of `predict`."""

    @abstractmethod
    def _of_each(
        self,
        pictures: Picture | Sequence[Picture],
        resize: ResizeRule | None,
        value_range: ValueRange | None,
        ask: Callable[[np.ndarray | StoredImages, int], np.ndarray],
    ) -> np.ndarray:
        """What `ask` says of (images [n …], number of the first), for all; raises InputError naming bad pictures."""

    @abstractmethod
    def _one_network(self, asked: str) -> "SingleClassifier":
        """Itself; raises InputError for an ensemble, with the remedy to ask a member."""

    def features(
        self,
        pictures: Picture | Sequence[Picture],
        layer: str,
        resize: ResizeRule | None = None,
        value_range: ValueRange | None = None,
    ) -> np.ndarray:
        """float32[n …]: what a layer gives, its activation included; pictures, resize and value_range as of `predict`.

        layer: of a Sequential a name that `engine summary` shows, like conv_2; the last gives what the probabilities
          are made of. Of a class of your own the path of a submodule, like encoder.blocks.0.
        Raises InputError for a name that the model does not have, listing those it has.
        """
        single = self._one_network("features")
        return self._of_each(pictures, resize, value_range, lambda images, first: single.layer_outputs(images, layer))

    def feature_maps(
        self, picture: Picture, resize: ResizeRule | None = None, value_range: ValueRange | None = None
    ) -> dict[str, np.ndarray]:
        """float32[y x c] by name: what each layer that gives images makes of one picture, in order.

        A layer with an activation is there twice: as `conv_1 before relu` and, with it applied, as `conv_1`.
        Raises InputError for a class of your own, whose layers have no order.
        """
        from engine.inference.feature_maps import find_feature_maps

        return find_feature_maps(self._one_network("feature_maps"), self._read(picture, resize, value_range))

    def explain(
        self,
        pictures: Picture | Sequence[Picture],
        of: "Of" = None,
        layer: str | None = None,
        resize: ResizeRule | None = None,
        value_range: ValueRange | None = None,
    ) -> "list[Explanation]":
        """An Explanation of each picture: where the network sees a class, by Grad-CAM.

        of: a class by name or number, for all pictures or for each; of a regression an output by number. None: the
          likeliest.
        layer: whose maps are weighted, as of `features`. None: the last one that gives images and is not a pool.
        Raises InputError for a model without such a layer.
        """
        from engine.inference.explain import explain_pictures

        return explain_pictures(self._one_network("explain"), self._read(pictures, resize, value_range), of, layer)

    def _read(
        self, pictures: Picture | Sequence[Picture], resize: ResizeRule | None, value_range: ValueRange | None
    ) -> np.ndarray:
        """[n …] that fits the model."""
        return self._of_each(pictures, resize, value_range, lambda images, first: np.asarray(images))
