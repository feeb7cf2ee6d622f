"""A model of timm or torchvision and its twin of ours with the same weights, moved over by name."""

import zlib
from collections.abc import Mapping
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.keras_twins import Arrays, Twin, difference, without_dropout
from engine.importers.importing import targets_of, tree_of
from engine.importers.matching import fill
from engine.importers.torch_names import is_counter, make_name_map
from engine.models.specs import Sequential
from engine.networks.network import network_of

SEED = 20


def make_torch(name: str, **settings: Any) -> tuple[Any, Arrays]:
    """A model of timm, or torchvision's after a colon, for evaluation, all its arrays drawn; and these arrays."""
    import timm
    import torch
    import torchvision

    is_timm = not name.startswith(":")
    model = timm.create_model(name, **settings) if is_timm else getattr(torchvision.models, name[1:])(**settings)
    arrays = draw_arrays({key: tuple(tensor.shape) for key, tensor in model.state_dict().items()})
    missing, unexpected = model.load_state_dict({n: torch.from_numpy(a) for n, a in arrays.items()}, strict=False)
    assert not unexpected
    assert all(map(is_counter, missing)), missing
    return model.eval(), arrays


def draw_arrays(shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    """An array for each name of torch but counters, a function of name and shape; each differs from a fresh one."""
    return {name: _drawn(name, tuple(shape)) for name, shape in shapes.items() if not is_counter(name)}


def _drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Variances are wide enough for relu6 to clip few values: where it clips many, roundings alone move logits."""
    draw = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    if name.endswith("running_var"):
        return draw.uniform(0.8, 2.2, shape).astype(np.float32)
    if name.endswith("weight") and len(shape) == 1:
        return draw.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith(("gamma", "layer_scale")):
        return draw.uniform(0.2, 0.5, shape).astype(np.float32)
    fan_in = prod(shape[1:]) if name.endswith("weight") else 20
    return draw.standard_normal(shape, np.float32) * np.float32((2 / fan_in) ** 0.5)


def draw_images(size: int, count: int = 2) -> np.ndarray:
    """float32[b h w 3] as a contract makes them: of mean 0 and standard deviation 1."""
    return np.random.default_rng(size).standard_normal((count, size, size, 3), np.float32)


def run_torch(model: Any, images: np.ndarray) -> np.ndarray:
    """Logits [b k] of images [b h w 3]."""
    import torch

    with torch.inference_mode():
        return model(_channels_first(images)).numpy()


def make_torch_twin(spec: Sequential, size: int, given: Mapping[str, np.ndarray]) -> Twin:
    """The network of a spec, for images of `size`, filled by name with the arrays of a state dict."""
    shape, num_outputs = (size, size, 3), spec.output_shape((size, size, 3))[-1]
    counted = {name: array for name, array in given.items() if not is_counter(name)}
    filled = fill(targets_of(spec, shape, num_outputs), counted, make_name_map(spec), "state dict")
    trees = jax.tree.map(jnp.asarray, (tree_of(filled.arrays, 0), tree_of(filled.arrays, 1)))
    return Twin(network_of(spec, shape, num_outputs, "xla")[0], trees, filled.left_over)


def compare_torch_steps(model: Any, spec: Sequential, given: Arrays, images: np.ndarray) -> float:
    """The largest difference of a training step's gradients, as a share of the largest of its array.

    torch computes in float64: in float32 a relu near 0 that switches, or another winner of a pool, moves its gradients
    by 5e-3. Gradients whose largest is below 1e-5 of the largest of all are left out: they are rounding alone.
    """
    import torch

    spec = without_dropout(spec)
    twin = make_torch_twin(spec, images.shape[1], given)
    labels = np.arange(len(images)) % spec.output_shape(images.shape[1:])[-1]
    outputs = model.double().train()(_channels_first(images).double())
    torch.nn.functional.cross_entropy(outputs, torch.from_numpy(labels)).backward()
    theirs = {name: tensor.grad.float().numpy() for name, tensor in model.named_parameters()}
    # A twin wants all arrays: the statistics, of which there are no gradients, are those given.
    expected = make_torch_twin(spec, images.shape[1], {**given, **theirs}).trees[0]

    def our_loss(params: Any, model_state: Any) -> jax.Array:
        outputs, _ = twin.network.apply(params, model_state, images, None, jax.random.key(0))
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()

    found = jax.jit(jax.grad(our_loss))(*twin.trees)
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True)]
    most = max(np.abs(b).max() for _, b in pairs)
    return max(difference(a, b) for a, b in pairs if np.abs(b).max() > 1e-5 * most)


def _channels_first(images: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
