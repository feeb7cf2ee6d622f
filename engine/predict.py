"""Classifier: a trained model with its input contract, for arrays, files and pictures."""

from collections import deque
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from engine.augment.apply import augment_batch, example_keys
from engine.augment.config import AugmentConfig
from engine.checkpoint import Record
from engine.clock import Clock
from engine.config import Lowering
from engine.convolution import compiler_options
from engine.data.config import ResizeRule
from engine.data.dataset import Dataset, names_text
from engine.data.images import InputSpec, Picture, picture_files, read_pictures
from engine.data.stored import StoredImages
from engine.errors import InputError, problem, shape_text, unknown
from engine.evaluate import eval_batch_size, evaluate, pad_to
from engine.losses import probabilities
from engine.program import Executables
from engine.state import AnyNetwork, Tree
from engine.step import Task, normalize

EVALUATION_LOWERING: Lowering = "native"
PADDED_SIZES = (1, 8, 64, 256, 1024)
TTA_DRAWS = 8
BATCHES_AHEAD = 2  # given to the device before the outputs of earlier ones are waited for
_ONE_PICTURE = (str, PathLike, bytes, np.ndarray, Image.Image)


@dataclass(frozen=True)
class Prediction:
    """What the model sees in one picture: the likeliest class, and the `top` ones with their probabilities."""

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


class Classifier:
    """A model that can be asked. Made by `engine.restore` or by a run's result."""

    def __init__(
        self,
        record: Record,
        network: AnyNetwork,
        params: Tree,
        model_state: Tree,
        executables: Executables | None = None,
    ):
        self.record, self._network, self._params, self._model_state = record, network, params, model_state
        self._executables = executables or Executables(Clock())
        self._forwards: dict[AugmentConfig | None, Any] = {}

    def with_weights(self, record: Record, params: Tree, model_state: Tree) -> "Classifier":
        """Another model of the same network, that shares what is compiled."""
        other = copy(self)
        other.record, other._params, other._model_state = record, params, model_state
        return other

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the outputs; empty for a regression."""
        return self.record.class_names

    @property
    def input_spec(self) -> InputSpec:
        """The input contract."""
        return self.record.input_spec

    def predict(
        self,
        pictures: Picture | Sequence[Picture],
        top: int = 1,
        resize: ResizeRule | None = None,
        tta: int | AugmentConfig = 0,
    ) -> list[Prediction]:
        """One Prediction a picture, with the `top` likeliest classes.

        pictures: paths, bytes, PIL images and uint8 arrays [h w c] in any mix, an array [n h w c], one of these, or a
          folder, whose images are taken in order of their names.
        resize: how pictures of another size are made to fit; by default the model's own rule, which may refuse them.
        tta: test-time augmentation. The probabilities are means over the picture as it is and so many draws of the
          augmentation the model was trained with, or TTA_DRAWS draws of another one. The same draws every time.
        Raises InputError naming each picture that cannot be used.
        """
        if not self.class_names:
            raise InputError(problem("predict", "a regression model", "a classifier", "Use outputs() instead."))
        if not isinstance(top, int) or top < 1:
            raise InputError(problem("top", repr(top), "a whole number of at least 1", "Say how many classes to name."))
        return [self._prediction(row, top) for row in self.predict_proba(pictures, resize, tta)]

    def predict_proba(
        self,
        pictures: Picture | Sequence[Picture],
        resize: ResizeRule | None = None,
        tta: int | AugmentConfig = 0,
    ) -> np.ndarray:
        """float32[n k]: the probability of each class; arguments as of `predict`."""
        return self.outputs(self._images(pictures, resize), tta)

    def outputs(self, images: np.ndarray | StoredImages, tta: int | AugmentConfig = 0) -> np.ndarray:
        """float32[n k] for an array [n …] that fits the input contract: probabilities, or a regression's outputs."""
        augment, draws = self._test_time_augmentation(tta)
        plain = self._checked_outputs(images)
        if not draws:
            return plain
        total = plain.astype(np.float64)
        for draw in range(draws):
            total += self._checked_outputs(images, (augment, draw))
        return (total / (draws + 1)).astype(np.float32)

    def _test_time_augmentation(self, tta: int | AugmentConfig) -> tuple[AugmentConfig, int]:
        trained_with = self.record.config.augment
        augment, draws = (tta, TTA_DRAWS) if isinstance(tta, AugmentConfig) else (trained_with, tta)
        if not isinstance(draws, int) or isinstance(draws, bool) or draws < 0:
            raise InputError(problem("tta", repr(tta), "a number of draws or an AugmentConfig", "Give 8 or so."))
        augment = replace(augment, mixup=0.0, cutmix=0.0, erasing=0.0)  # these would take away what is asked about
        if draws and not augment.is_active:
            rule = "a model that was trained with augmentation, or an AugmentConfig"
            raise InputError(problem("tta", repr(tta), rule, "Leave it out, or pass an AugmentConfig."))
        if draws:
            check_can_augment("tta", self.input_spec.shape, self.input_spec.dtype)
        return augment, draws

    def _checked_outputs(
        self, images: np.ndarray | StoredImages, draw: tuple[AugmentConfig, int] | None = None
    ) -> np.ndarray:
        spec = self.input_spec
        if images.shape[1:] != tuple(spec.shape) or images.dtype.name != spec.dtype:
            got = f"{images.dtype.name} of {shape_text(images.shape[1:])}"
            rule = f"{spec.dtype} of {shape_text(spec.shape)}, the model's input"
            raise InputError(problem("images", got, rule, "Convert them, or use the data it was trained for."))
        largest = eval_batch_size(spec.shape, PADDED_SIZES[-1])
        parts, waiting = [], deque[tuple[jax.Array, int]]()
        for i in range(0, len(images), largest):
            waiting.append(self._started(images[i : i + largest], i, draw))
            if len(waiting) > BATCHES_AHEAD:
                parts.append(_finished(*waiting.popleft()))
        parts += [_finished(*each) for each in waiting]
        return (
            np.concatenate(parts)
            if parts
            else np.zeros((0, len(self.class_names) or self.record.num_outputs), np.float32)
        )

    def evaluate(self, dataset: Dataset) -> dict[str, Any]:
        """n, loss and (for classes) accuracy and top5 over every example of a dataset, each exactly once."""
        self.check_fits(dataset)
        sums = evaluate(self._executables, self._task, self._params, self._model_state, dataset)
        return sums.means(self.record.config.train.loss, self.record.num_outputs)

    def check_fits(self, dataset: Dataset) -> None:
        """Raises InputError, showing both sides, unless the dataset has the model's input and classes."""
        if not isinstance(dataset, Dataset):
            rule, remedy = "a Dataset", "Make one of arrays with engine.dataset(images, labels)."
            raise InputError(problem("dataset", type(dataset).__name__, rule, remedy))
        spec = self.input_spec
        if dataset.input_shape != tuple(spec.shape) or dataset.images.dtype.name != spec.dtype:
            got = f"images of {shape_text(dataset.input_shape)} ({dataset.images.dtype.name})"
            rule = f"{shape_text(spec.shape)} ({spec.dtype}), the model's input"
            raise InputError(problem(dataset.name, got, rule, "Use data of that size, or set an image size."))
        if not _are_same_classes(dataset.class_names, self.class_names):
            got = f"{dataset.num_classes} classes ({names_text(dataset.class_names)})"
            rule = f"the model's {len(self.class_names)} ({names_text(self.class_names)})"
            raise InputError(problem(dataset.name, got, rule, "Use data with the model's classes."))
        if not self.class_names and dataset.labels.shape[1:] != (self.record.num_outputs,):
            got, rule = f"targets of {dataset.labels.shape[1:]}", f"{self.record.num_outputs} an example"
            raise InputError(problem(dataset.name, got, rule, "Use targets of the model's shape."))

    def _forward(self, augment: AugmentConfig | None) -> Any:
        """(params, model state, images, number of the first, draw) → outputs; compiled once for each augmentation."""
        if augment not in self._forwards:
            config, network, spec = self.record.config, self._network, self.input_spec

            def forward(params: Tree, model_state: Tree, images: jax.Array, first: Any, draw: Any) -> jax.Array:
                if augment is not None:
                    keys = example_keys(config.train.seed, draw, first + jnp.arange(len(images)), "tta")
                    images, _ = augment_batch(keys, images, augment)
                outputs, _ = network.apply(params, model_state, normalize(images, spec), None, None)
                return probabilities(outputs, config.train.loss).astype(jnp.float32)

            self._forwards[augment] = jax.jit(forward, compiler_options=compiler_options())
        return self._forwards[augment]

    @property
    def _task(self) -> Task:
        return Task(self._network, self.record.config.train.loss, 0.0, optax.identity(), self.input_spec)

    def _started(self, images: np.ndarray, first: int, draw: tuple[AugmentConfig, int] | None) -> tuple[jax.Array, int]:
        """(outputs that the device is at work on, how many count): padded to one of few sizes, so that no more are ever
        compiled."""
        count, (augment, number) = len(images), draw or (None, 0)
        largest = eval_batch_size(self.input_spec.shape, PADDED_SIZES[-1])
        size = next((size for size in PADDED_SIZES if count <= size <= largest), largest)
        place = (np.int32(first), np.int32(number))
        return self._forward(augment)(self._params, self._model_state, pad_to(images, size), *place), count

    def _images(self, pictures: Picture | Sequence[Picture], resize: ResizeRule | None) -> np.ndarray:
        if resize is not None and resize not in get_args(ResizeRule):
            raise InputError(unknown("resize", resize, get_args(ResizeRule)))
        shape = self.input_spec.shape
        if isinstance(pictures, np.ndarray) and pictures.ndim == len(shape) + 1:
            return pictures
        if isinstance(pictures, np.ndarray) and pictures.shape[1:] == shape[:2] and shape[2:] == (1,):
            return pictures[..., None]  # [n h w] → [n h w 1]
        if not isinstance(pictures, (*_ONE_PICTURE, Sequence)):
            rule = "a path, bytes, a PIL image, an array, or a list of these"
            raise InputError(problem("pictures", type(pictures).__name__, rule, "Pass one of these."))
        many = [pictures] if isinstance(pictures, _ONE_PICTURE) else list(pictures)
        if len(many) == 1 and isinstance(many[0], (str, PathLike)):
            many = list[Picture](picture_files([many[0]]))
        if not many:
            return np.zeros((0, *self.input_spec.shape), self.input_spec.dtype)
        return read_pictures(many, replace(self.input_spec, resize=resize or self.input_spec.resize))

    def _prediction(self, row: np.ndarray, top: int) -> Prediction:
        best = np.argsort(-row, kind="stable")[:top]
        named = tuple((self.class_names[k], float(row[k])) for k in best)
        return Prediction(named[0][0], named[0][1], named)


def _finished(outputs: jax.Array, count: int) -> np.ndarray:
    return np.asarray(outputs)[:count]


def check_can_augment(field: str, input_shape: tuple[int, ...], dtype: str) -> None:
    """Raises InputError unless inputs are pictures, the only thing that augmentation has a meaning for."""
    if dtype != "uint8" or len(input_shape) != 3 or input_shape[-1] not in (1, 3):
        got, rule = f"{dtype} inputs {input_shape}", "uint8 images [h w 1] or [h w 3] to augment"
        raise InputError(problem(field, got, rule, "Leave augmentation out."))


def _are_same_classes(ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    """Whether names agree, in order; classes that were never named ("0", "1", …) go with any of the same number."""
    numbered = tuple(map(str, range(len(ours))))
    return ours == theirs or (len(ours) == len(theirs) and numbered in (ours, theirs))
