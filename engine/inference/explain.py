"""Grad-CAM: where in a picture a network sees a class (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from engine.checkpoints.record import Record
from engine.config import Lowering
from engine.config.scoring import OutputActivation, loss_facts
from engine.data.pictures.shown import png_bytes, shown_levels
from engine.errors import InputError, problem, shape_text, unknown
from engine.host.storage import check_file_place, expanded, replaced
from engine.inference.layer_outputs import Shifted, make_layer_function, number_of, path_of, wrapped_network
from engine.kernels.lowerings import evaluation_lowering
from engine.metrics.losses import probabilities
from engine.networks.network import NetworkPart, Tree, network_of, normalize
from engine.text import counted
from engine.training.evaluate import pad_to

if TYPE_CHECKING:
    from engine.inference.single import SingleClassifier

AT_ONCE = 8  # pictures, of which the gradients of a large network take gigabytes
COLORS = "turbo"
MOST_COVERED = 0.6  # of a pixel of the picture, by the colour of the highest heat
Of = str | int | Sequence[str | int] | None


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where in a picture a network sees a class, by Grad-CAM.

    heat: float32[y x], 0 or more, as many places as the maps of `layer` have: the mean gradient of the class's score
      with respect to each map times the map, summed over the maps; 0 where that is negative.
    image: what the network was given, [h w c], cropped if its input is.
    label, probability: of the class; of a regression the number of the output and its value.
    """

    image: np.ndarray
    heat: np.ndarray
    label: str
    probability: float
    layer: str

    @property
    def picture(self) -> np.ndarray:
        """uint8[h w 3]: the picture with the heat over it, from none (the picture as it is) to red for the most."""
        from matplotlib import colormaps

        plain = shown_levels(self.image)
        plain = np.repeat(plain, 3, axis=2) if plain.shape[2] == 1 else plain
        highest = float(self.heat.max())
        shares = self.heat / highest if highest > 0 else self.heat
        size = (plain.shape[1], plain.shape[0])
        shares = np.clip(np.asarray(Image.fromarray(shares).resize(size, Image.Resampling.BILINEAR)), 0, 1)
        colors = colormaps[COLORS](shares)[..., :3] * 255
        cover = MOST_COVERED * shares[..., None]
        return np.round(plain * (1 - cover) + colors * cover).astype(np.uint8)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the picture as a PNG; raises InputError unless a .png can be put there."""
        target = expanded(path)
        check_file_place(target, "path", ".png")
        with replaced(target) as file:
            file.write(self._repr_png_())

    def _repr_png_(self) -> bytes:
        return png_bytes(self.picture)


def explain_pictures(
    classifier: "SingleClassifier", images: np.ndarray, of: Of, layer: str | None
) -> list[Explanation]:
    """An Explanation of each of the images [n …], which fit the model; arguments as of `Classifier.explain`."""
    record, spec = classifier.record, classifier.input_spec
    layer = layer or find_last_maps(record)
    wanted = np.array(_wanted_outputs(record, of, len(images)), np.int32)
    run = make_heat_function(record, layer, evaluation_lowering(record.config.plan))
    activation = loss_facts(record.config.train.loss, record.task).activation

    def explained(params: Tree, model_state: Tree, images: jax.Array, wanted: jax.Array) -> tuple[jax.Array, ...]:
        maps, outputs, pull = run(params, model_state, normalize(images, spec))
        chances = probabilities(outputs, activation)
        number = jnp.where(wanted < 0, chances.argmax(-1), wanted)
        return heat_of(maps, pull(score_gradient(outputs, number, activation))), chances, number

    found = list[Explanation]()
    for start in range(0, len(images), AT_ONCE):
        part = images[start : start + AT_ONCE]
        size = 1 if len(part) == 1 else AT_ONCE
        batch = pad_to(np.asarray(part), size), pad_to(wanted[start : start + AT_ONCE], size)
        name = ("explain", layer, size)
        answers = classifier.executables.call(name, explained, classifier.params, classifier.model_state, *batch)
        heats, chances, numbers = (np.asarray(each)[: len(part)] for each in answers)
        for image, heat, row, number in zip(part, heats, chances, numbers, strict=True):
            label = record.class_names[number] if record.class_names else str(number)
            found.append(Explanation(_cropped(image, spec.center_crop), heat, label, float(row[number]), layer))
    return found


HeatFunction = Callable[[Tree, Tree, jax.Array], tuple[jax.Array, jax.Array, Callable[[jax.Array], jax.Array]]]


def make_heat_function(record: Record, layer: str, lowering: Lowering) -> HeatFunction:
    """(params, model state, inputs [b …]) → (maps [b y x c] of the layer, outputs [b k], pull).

    pull: the gradient with respect to the maps [b y x c] of that with respect to the outputs [b k].
    Raises InputError for a layer that the model does not have, or that does not give images.
    """
    spec, model = record.input_spec, record.config.model
    maps_of = make_layer_function(record, layer, lowering)

    def run(params: Tree, model_state: Tree, inputs: jax.Array) -> tuple[jax.Array, jax.Array, Any]:
        maps = maps_of(params, model_state, inputs)
        if maps.ndim != 4:
            rule, remedy = "a layer that gives images, like a convolution", "Name another."
            raise InputError(problem("layer", f"{layer!r}, which gives {shape_text(maps.shape[1:])}", rule, remedy))
        outputs, pull = jax.vjp(lambda given: after(params, model_state, inputs, given, maps), maps)
        return maps, outputs, lambda gradient: pull(gradient)[0]

    if model.is_layered:
        part = NetworkPart(first=number_of(model, layer) + 1)
        of_record = (spec.network_shape, record.num_outputs, lowering, spec.whiten, record.config.train.precision)
        rest, _ = network_of(model, *of_record, part)

        def after(params: Tree, model_state: Tree, inputs: Any, given: jax.Array, maps: jax.Array) -> jax.Array:
            return rest.apply(params, model_state, given, None, None)[0]
    else:
        whole = wrapped_network(record, lowering, lambda module: Shifted(module, path_of(module, layer)), model.gives)

        def after(params: Tree, model_state: Tree, inputs: Any, given: jax.Array, maps: jax.Array) -> jax.Array:
            return whole(params, model_state, inputs, shift=given - maps)

    return run


def score_gradient(outputs: jax.Array, number: jax.Array, activation: OutputActivation) -> jax.Array:
    """[b k]: the gradient of the scores of classes int[b] with respect to the outputs, which are logits [b k].

    With one output for two classes, that is the score of the second, and the less the more of the first.
    """
    if activation == "sigmoid":
        return jnp.where(number == 1, 1.0, -1.0)[:, None].astype(outputs.dtype)
    return jax.nn.one_hot(number, outputs.shape[-1], dtype=outputs.dtype)


def heat_of(maps: jax.Array, gradient: jax.Array) -> jax.Array:
    """float32[b y x]: Grad-CAM of maps [b y x c] and the gradient of a score with respect to them, [b y x c]."""
    weights = gradient.astype(jnp.float32).mean((1, 2), keepdims=True)
    return jax.nn.relu((maps * weights).sum(-1))


def find_last_maps(record: Record) -> str:
    """The last layer that gives images of more than a pixel and is not a pool: what Grad-CAM looks at by default."""
    model, rule = record.config.model, "a model of layers with convolutions"
    if not model.is_layered:
        remedy = "Name the submodule to look at: explain(picture, layer=…)."
        raise InputError(problem("explain", "a class of its author's own", "the name of a layer", remedy))
    rows = model.with_outputs(record.num_outputs).rows(record.input_spec.network_shape)
    for row, layer in zip(reversed(rows), reversed(model.layers), strict=True):
        has_maps = len(row.output_shape) == 3 and row.output_shape[:2] != (1, 1)
        if has_maps and not layer.keeps_values and not layer.pools_values:
            return row.name
    raise InputError(problem("explain", "a model without maps", rule, "Grad-CAM has nothing to look at in this one."))


def _wanted_outputs(record: Record, of: Of, count: int) -> list[int]:
    """The number of the class of each picture; -1 for the likeliest."""
    given: list[Any] = [of] * count
    if isinstance(of, Sequence | np.ndarray) and not isinstance(of, str) and np.ndim(of) > 0:
        given = list(of)
    if len(given) != count:
        rule = f"one for each of {count} pictures, or one for all"
        raise InputError(problem("of", counted(len(given), "class"), rule, "Give as many."))
    return [-1 if name is None else _number_of(record, name) for name in given]


def _number_of(record: Record, name: str | int) -> int:
    count = len(record.class_names) or record.num_outputs
    if isinstance(name, str):
        if name not in record.class_names:
            raise InputError(unknown("of", name, record.class_names))
        return record.class_names.index(name)
    if not isinstance(name, int | np.integer) or isinstance(name, bool) or not 0 <= name < count:
        raise InputError(problem("of", name, f"0 to {count - 1}", "Give the name or the number of a class."))
    return int(name)


def _cropped(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """The middle of an image [h w c], which the network is given."""
    if size is None:
        return image
    top, left = (image.shape[0] - size[0]) // 2, (image.shape[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]
