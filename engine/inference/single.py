"""SingleClassifier: a classifier of one network; `ensemble` has that of several."""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from threading import Lock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from engine.augment.apply import augment_batch, example_keys
from engine.augment.config import AugmentConfig
from engine.checkpoints.record import Record
from engine.config.scoring import loss_facts
from engine.data.arrays.stored import StoredImages
from engine.data.decoded.dataset import Dataset
from engine.devices.executables import Executables
from engine.errors import InputError, problem
from engine.host.clock import Clock
from engine.inference.classifier import Classifier, check_can_augment
from engine.inference.forward import apply_padded
from engine.inference.layer_outputs import make_layer_function
from engine.kernels.lowerings import evaluation_lowering
from engine.metrics.losses import probabilities
from engine.networks.layer_names import Layers
from engine.networks.network import AnyNetwork, Tree, layers_in, normalize
from engine.training.evaluate import Look, evaluate
from engine.training.step import Objective

TTA_DRAWS = 8


class Once:
    """A value that is made when a thread first needs it."""

    def __init__(self, make: Callable[[], Any]):
        self._make, self._made, self._lock = make, list[Any](), Lock()

    def __call__(self) -> Any:
        """The value."""
        with self._lock:
            if not self._made:
                self._made.append(self._make())
        return self._made[0]


class SingleClassifier(Classifier):
    """One network with its arrays."""

    def __init__(
        self,
        record: Record,
        network: AnyNetwork,
        params: Tree,
        model_state: Tree,
        executables: Executables | None = None,
    ):
        super().__init__(record)
        self.network, self._params, self._model_state = network, params, model_state
        self.executables = executables or Executables(Clock())
        self._draw_seed = np.uint32(record.config.train.seed)
        self._make_weights, predict = network.make_prediction()
        self._predict = lambda weights, inputs: predict(weights, normalize(inputs, record.input_spec))
        self._weights = Once(lambda: self._make_weights(params, model_state))

    @property
    def params(self) -> Tree:
        """The parameters."""
        return self._params

    @property
    def model_state(self) -> Tree:
        """All other arrays of the model: batch statistics and the like."""
        return self._model_state

    def with_weights(self, record: Record, params: Tree, model_state: Tree) -> "SingleClassifier":
        """Another model of the same network, that shares what is compiled and the draws of test-time augmentation."""
        other = copy(self)
        other.record, other._params, other._model_state = record, params, model_state
        other._weights = Once(lambda: self._make_weights(params, model_state))
        return other

    def _one_network(self, asked: str) -> "SingleClassifier":
        return self

    @property
    def layers(self) -> Layers:
        """The layers that hold arrays."""
        record = self.record
        return layers_in(record.config.model, record.input_spec.network_shape, record.num_outputs)

    @property
    def arrays(self) -> tuple[Tree, Tree]:
        """(params, model state) of the network itself, without a whitening before it."""
        return self._params, self._model_state[1] if self.input_spec.whiten else self._model_state

    def use_arrays(self, params: Tree, model_state: Tree) -> None:
        """Changes `arrays`."""
        state = (self._model_state[0], model_state) if self.input_spec.whiten else model_state
        self._params, self._model_state = params, state
        self._weights = Once(lambda: self._make_weights(params, state))

    def layer_outputs(self, images: np.ndarray | StoredImages, layer: str) -> np.ndarray:
        """float32[n …]: what a layer gives for images whose values are known to fit."""
        record, spec = self.record, self.input_spec

        def features(params: Tree, model_state: Tree, images: jax.Array, first: Any) -> jax.Array:
            of_layer = make_layer_function(record, layer, evaluation_lowering(record.config.plan))
            return of_layer(params, model_state, normalize(images, spec))

        weights = (self._params, self._model_state)
        return apply_padded(self.executables, ("features", layer), features, weights, images)

    def fitting_outputs(self, images: np.ndarray | StoredImages, tta: int | AugmentConfig, first: int) -> np.ndarray:
        """As of `Classifier`."""
        augment, draws = self._test_time_augmentation(tta)
        plain = self._asked(images, first)
        if not draws:
            return plain
        total = plain.astype(np.float64)
        for draw in range(draws):
            total += self._asked(images, first, augment, draw)
        return (total / (draws + 1)).astype(np.float32)

    def evaluate_fitting(self, dataset: Dataset, look: Look | None = None) -> dict[str, Any]:
        """As of `Classifier`."""
        sums = evaluate(self.executables, self._objective, self._params, self._model_state, dataset, look)
        return self.scoring.means(sums)

    def _test_time_augmentation(self, tta: int | AugmentConfig) -> tuple[AugmentConfig, int]:
        trained_with = self.record.config.augment
        augment, draws = (tta, TTA_DRAWS) if isinstance(tta, AugmentConfig) else (trained_with, tta)
        if not isinstance(draws, int | np.integer) or isinstance(draws, bool) or draws < 0:
            raise InputError(problem("tta", repr(tta), "a number of draws or an AugmentConfig", "Give 8 or so."))
        if not draws:
            return augment, 0
        augment = replace(
            augment.without_mixing(), erasing=0.0
        )  # these would remove or blend the image that is classified
        if not augment.is_active:
            rule = "a model that was trained with augmentation, or an AugmentConfig"
            raise InputError(problem("tta", repr(tta), rule, "Leave it out, or pass an AugmentConfig."))
        crop = self.input_spec.center_crop
        if augment.random_crop not in (None, crop):
            rule = f"{crop}, the model's" if crop else "none, because the model sees whole images"
            raise InputError(problem("tta.random_crop", augment.random_crop, rule, "Leave it out."))
        check_can_augment("tta", self.input_spec.shape, self.input_spec.dtype)
        return augment, draws

    def _asked(
        self, images: np.ndarray | StoredImages, first: int, augment: AugmentConfig | None = None, draw: int = 0
    ) -> np.ndarray:
        """float32[n k]: the outputs for the images as they are, or for one draw of an augmentation."""
        predict = self._predict
        activation = loss_facts(self.record.config.train.loss, self.record.task).activation

        def forward(weights: Tree, of_draw: Any, images: jax.Array, first: Any) -> jax.Array:
            if augment is not None:
                seed, number = of_draw
                keys = example_keys(seed, number, first + jnp.arange(len(images)), "tta")
                images, _ = augment_batch(keys, images, augment)
            return probabilities(predict(weights, images), activation).astype(jnp.float32)

        of_draw = () if augment is None else (self._draw_seed, np.int32(draw))
        arguments = (self._weights(), of_draw)
        return apply_padded(self.executables, ("outputs", augment), forward, arguments, images, first)

    @property
    def _objective(self) -> Objective:
        return Objective(self.network, self.scoring, 0.0, optax.identity(), self.input_spec)
