"""What is trained in benchmarks: recipes at a batch size, on random images, and how much arithmetic that is.

Imports no JAX: processes that measure other libraries use it too.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from engine.config import FineTuneConfig, OptimConfig, RunConfig, TrainConfig
from engine.data.decoded.dataset import Dataset
from engine.models import Conv, Dense, DepthwiseConv, MaxPool, Sequential, mobilenet, mobilenet_v2, resnet
from engine.models.blocks import Paths
from engine.models.layer import Layer
from engine.recipes import cats_dogs

IMAGE, CLASSES = (28, 28, 1), 10
# Of recipes that are not for Fashion-MNIST: image shape, classes, images of the training split.
MEANT_FOR = {
    "flowers": ((180, 180, 3), 5, 2_936),
    "malaria": ((32, 32, 3), 2, 22_046),
    "cifar_fast": ((32, 32, 3), 10, 45_000),
}
# Families that are no recipe: the network, its image shape and classes. Adam at a small rate, as in fine-tuning.
FAMILIES: dict[str, tuple[Callable[[], Sequential], tuple[int, ...], int]] = {
    "mobilenet_128": (mobilenet, (128, 128, 3), 2),
    "mobilenet_128_frozen": (cats_dogs.model, (128, 128, 3), 2),
    "mobilenet_v2_224": (mobilenet_v2, (224, 224, 3), 1000),
    "resnet50_224": (resnet, (224, 224, 3), 1000),
}
# Families of which only the head is trained: their last frozen layer. The trunk runs in each step, as it must where
# images are augmented.
FROZEN_UNTIL = {"mobilenet_128_frozen": "conv_pw_13_relu"}
CPU_RATE = 60e9  # operations a second that any CPU roughly trains at
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Workload:
    """A recipe or family at a batch size, on images of a kind; num_train: those of the training split it is meant for.

    predicted_at_once: images of a call of prediction; None: of three sizes the one that suits a library best.
    """

    recipe: str
    batch_size: int
    input_shape: tuple[int, ...] = IMAGE
    num_classes: int = CLASSES
    num_train: int = 54_000
    predicted_at_once: int | None = None

    def config(self) -> RunConfig:
        """The recipe's config at this batch size, without early stopping, which noise would trigger."""
        if self.recipe in FAMILIES:
            model, optim = FAMILIES[self.recipe][0](), OptimConfig("adam", 1e-5)
            tuning = FineTuneConfig(freeze_until=FROZEN_UNTIL.get(self.recipe), cache_features="off")
            return RunConfig(self.recipe, model, optim=optim, train=TrainConfig(1, self.batch_size), finetune=tuning)
        config = importlib.import_module(f"experiments.{self.recipe}").config()
        return replace(config, train=replace(config.train, batch_size=self.batch_size, patience=None, best_by="loss"))

    @property
    def num_outputs(self) -> int:
        """Outputs of the model: one logit for two classes, where the recipe's loss asks for that."""
        return 1 if self.config().train.loss == "binary_cross_entropy" else self.num_classes

    def model(self) -> Sequential:
        """The layers, with the number of outputs filled in."""
        model = self.config().model
        assert isinstance(model, Sequential)
        return model.with_outputs(self.num_outputs)

    @property
    def num_frozen(self) -> int:
        """How many of the model's first layers are not trained."""
        last = FROZEN_UNTIL.get(self.recipe)
        return 1 + [each.name for each in self.model().named].index(last) if last else 0

    @property
    def num_predicted(self) -> int:
        """Images to predict at once: 2,000 small ones, fewer large ones."""
        if self.predicted_at_once:
            return max(8, self.predicted_at_once)
        return max(40, min(2_000, 20_000_000 // prod(self.input_shape) // 40 * 40))

    def steps(self, seconds: float, is_cpu: bool = True) -> int:
        """Steps of an epoch: on a CPU about what takes so long, by a rate any has; else the whole training split."""
        if not is_cpu:
            return max(2, self.num_train // self.batch_size)
        work = operations(self.model(), self.input_shape) * self.batch_size
        return max(2, min(2000, int(seconds * CPU_RATE / work)))

    def images(self, count: int) -> Dataset:
        """Random images of this kind."""
        return random_images(count, self.input_shape, self.num_classes)


def workload_of(recipe: str, batch_size: int | None = None) -> Workload:
    """The workload of a recipe, at its own batch size unless another is given."""
    shape, classes, num_train = MEANT_FOR.get(recipe, (IMAGE, CLASSES, 54_000))
    config = importlib.import_module(f"experiments.{recipe}").config()
    return Workload(recipe, batch_size or config.train.batch_size, shape, classes, num_train)


def named(*workloads: Workload) -> dict[str, Workload]:
    """By names that say recipe and batch size."""
    return {f"{workload.recipe}, batch {workload.batch_size}": workload for workload in workloads}


def family(name: str, batch_size: int, predicted_at_once: int | None = None) -> Workload:
    """The workload of a family."""
    _, shape, classes = FAMILIES[name]
    return Workload(name, batch_size, shape, classes, 2_000, predicted_at_once)


SIZES_OF_STEPS = {
    "mobilenet_128": (32, 64),
    "mobilenet_128_frozen": (32,),
    "mobilenet_v2_224": (8,),
    "resnet50_224": (8, 64),
}
FAMILY_WORKLOADS = {
    **{f"{name}, batch {size}": family(name, size) for name, sizes in SIZES_OF_STEPS.items() for size in sizes},
    **{
        f"{name}, {size} at once": family(name, 8, size)
        for name in ("mobilenet_v2_224", "resnet50_224")
        for size in (1, 32)
    },
}
"""By names as those of WORKLOADS; the last are meant for prediction."""
WORKLOADS = named(
    workload_of("convnet", 64),
    workload_of("convnet", 128),
    workload_of("convnet", 512),
    workload_of("flowers"),
    workload_of("malaria"),
)


def random_images(count: int, shape: tuple[int, ...] = IMAGE, num_classes: int = CLASSES) -> Dataset:
    """Noise: what is in the images does not change how long they take."""
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (count, *shape), dtype=np.uint8), draw.integers(0, num_classes, count)
    return Dataset(images, labels.astype(np.int32), tuple(map(str, range(num_classes))), "noise", "noise")


def operations(spec: Sequential, input_shape: tuple[int, ...] = IMAGE, is_training: bool = True) -> int:
    """Arithmetic of training all layers on one image: 2 operations a multiply-add, forward and for both gradients,
    except that the first layer needs none for its input. Of prediction: forward alone."""
    multiply_adds, shape = [], input_shape
    for row, layer in zip(spec.rows(input_shape), spec.layers, strict=True):
        multiply_adds += _multiply_adds(layer, shape)
        shape = row.output_shape
    return 2 * (3 * sum(multiply_adds) - multiply_adds[0]) if is_training else 2 * sum(multiply_adds)


def _multiply_adds(layer: Layer, shape: tuple[int, ...]) -> list[int]:
    """Those of a layer's products for one input of a shape; of a block those of each layer within."""
    if isinstance(layer, Paths):
        inner = zip(layer.inner, layer.inner_inputs(shape), strict=True)  # no blocks within
        return [count for each in inner for count in _multiply_adds(*each)]
    if not isinstance(layer, Conv | DepthwiseConv | Dense):
        return []
    output = layer.output_shape(shape)
    weights = layer.num_params(shape) - layer.use_bias * output[-1]
    return [prod(output[:-1]) * weights]


def traffic(spec: Sequential, input_shape: tuple[int, ...], batch_size: int) -> float:
    """Bytes that training moves for one image at the least, in float32, if layers are not fused with one another.

    The outputs of each layer are written, read by the next and read again for its gradient; their gradient is written
    and read. A step moves each weight nine times: it is read twice and written, its gradient written and read, and the
    two moments of Adam read and written.
    """
    rows = zip(spec.rows(input_shape), spec.layers, strict=True)
    outputs = sum(prod(row.output_shape) for row, layer in rows if isinstance(layer, Conv | Dense | MaxPool))
    weights = sum(row.num_params for row in spec.rows(input_shape))
    return prod(input_shape) + FLOAT_BYTES * (5 * outputs + 9 * weights / batch_size)
