"""Looking into a classifier: features of its layers, Grad-CAM, and its weights by layer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine.checkpoints.record import Record
from engine.config.data import ResizeRule
from engine.config.decoding import ValueRange
from engine.data.arrays.stored import StoredImages
from engine.data.classes.names import names_text
from engine.data.pictures.images import Picture
from engine.errors import InputError, problem, shape_text
from engine.host.html import html_facts
from engine.models.specs import Model, Sequential
from engine.networks.layer_arrays import Weights, read_arrays, write_arrays

if TYPE_CHECKING:
    from engine.host.console import Table
    from engine.inference.explain import Explanation, Of
    from engine.inference.single import SingleClassifier
    from engine.models.graph import Graph


class Looking(ABC):
    """What shows how a classifier comes to its answers. pictures, resize, value_range: as of `predict`."""

    record: Record

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

    def get_weights(self) -> dict[str, dict[str, np.ndarray]]:
        """Copies of all arrays by layer and name: {"conv_1": {"kernel": [i j c o], "bias": [o]}, …}.

        The means and variances of batch norms are among them. Of a class of your own by the paths of its submodules.
        """
        single = self._one_network("get_weights")
        return read_arrays(single.layers, *single.arrays)

    def set_weights(self, weights: Weights) -> None:
        """Changes arrays, given by layer and name as `get_weights` has them; all others stay.

        Not for a classifier that other threads use at the same time. What is saved of the run stays as it is.
        Raises InputError for layers, names and shapes that the model does not have, and then changes nothing.
        """
        single = self._one_network("set_weights")
        single.use_arrays(*write_arrays(single.layers, weights, *single.arrays))

    @property
    def model(self) -> Model:
        """The model's layers, with as many outputs as it has; or the class of its author's own."""
        return self.record.config.model.with_outputs(self.record.num_outputs)

    def summary(self, inner: bool = False) -> "Table":
        """The layers with their output shapes and parameters: see Sequential.summary."""
        return self._layered("summary").summary(self.record.input_spec.network_shape, inner=inner)

    def graph(self) -> "Graph":
        """The layers as a graph: see Sequential.graph."""
        return self._layered("graph").graph(self.record.input_spec.network_shape)

    def _layered(self, asked: str) -> Sequential:
        if isinstance(self.model, Sequential):
            return self.model
        rule, remedy = "a model of layers", "Use engine summary, which prints Flax's own table."
        raise InputError(problem(asked, "a class of its author's own", rule, remedy))

    def _repr_html_(self) -> str:
        record, spec = self.record, self.record.input_spec
        classes = names_text(record.class_names) if record.class_names else f"{record.num_outputs} numbers"
        train = record.config.train
        facts = {
            "run": record.config.name, "step": record.step, "members": train.members if train.members > 1 else None,
            "input": f"{spec.dtype} {shape_text(spec.shape)}", "classes": f"{len(record.class_names)}: {classes}",
        }  # fmt: skip
        facts["classes"] = facts["classes"] if record.class_names else f"none: {classes}"
        title = type(self).__name__
        is_layered = isinstance(self.model, Sequential)
        return html_facts(title, facts) + (self.summary()._repr_mimebundle_()["text/html"] if is_layered else "")

    def _read(
        self, pictures: Picture | Sequence[Picture], resize: ResizeRule | None, value_range: ValueRange | None
    ) -> np.ndarray:
        """[n …] that fits the model."""
        return self._of_each(pictures, resize, value_range, lambda images, first: np.asarray(images))
