"""What imports of weights get wrong without an error: each family pads, strides and activates as its library does."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from engine.models import Activation, AveragePool, BatchNorm, Conv, DepthwiseConv, Flatten, MaxPool, Sequential, ZeroPad
from engine.models.activations import activation_spec
from engine.models.families import (
    convnext,
    efficientnet,
    efficientnet_lite,
    efficientnet_v2,
    inception_v3,
    mobilenet,
    mobilenet_v2,
    mobilenet_v3,
    resnet,
    resnet_v2,
    torch_mobilenet_v2,
    torch_resnet,
    vit,
)
from engine.models.layer import Layer
from engine.models.shapes import pair, slide
from engine.networks.build import build


def layers_of(spec: Sequential, kind: type) -> dict[str, Layer]:
    """The layers of a kind, at any depth, by name."""
    return {each.name: each.layer for each in spec.named if isinstance(each.layer, kind)}


def strided(spec: Sequential) -> Iterator[tuple[str, Conv | DepthwiseConv]]:
    """The convolutions of more than 1×1 that halve images."""
    for name, layer in layers_of(spec, Conv | DepthwiseConv).items():  # type: ignore[arg-type]
        if pair(layer.strides) == (2, 2) and pair(layer.kernel_size) != (1, 1):
            yield name, layer


def run(layers: tuple[Layer, ...], images: np.ndarray) -> np.ndarray:
    """What layers without arrays make of images, flattened."""
    spec = Sequential((*layers, Flatten()))
    (num_outputs,) = spec.output_shape(images.shape[1:])
    return np.asarray(build(spec, images.shape[1:], num_outputs, nnx.Rngs(0))(jnp.asarray(images)))


def test_mobilenet_pads_after_the_image_alone_and_so_has_22_rows_of_45():
    found = dict(strided(mobilenet()))
    assert {name for name in found if name.startswith("conv_dw")} == {f"conv_dw_{n}" for n in (2, 4, 6, 12)}
    for name, layer in found.items():
        assert layer.padding == ("same" if name == "conv1" else ((0, 1), (0, 1)))
    rows = {row.name: row.output_shape for row in mobilenet(top=False).rows((180, 180, 3))}
    assert (rows["conv_dw_4"], rows["conv_dw_6"]) == ((22, 22, 128), (11, 11, 256))
    assert slide((45, 45), 3, 2, "same") == (23, 23)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [7, 8, 45, 46, 224, 225])
def test_padding_of_keras_by_hand_is_that_of_same(size: int, kernel: int):
    """`correct_pad` of keras.applications, then "valid": k // 2 on both sides, one less before an even number."""
    before, after = kernel // 2 - (1 - size % 2), kernel // 2
    images = np.random.default_rng(size).random((1, size, size, 1), np.float32)
    by_hand = (ZeroPad(((before, after), (before, after))), AveragePool(kernel, 2))
    same = jax.lax.reduce_window(images, 0.0, jax.lax.add, (1, kernel, kernel, 1), (1, 2, 2, 1), "SAME") / kernel**2
    np.testing.assert_allclose(run(by_hand, images).ravel(), np.ravel(same), rtol=1e-5)


@pytest.mark.parametrize("make", [mobilenet_v2, mobilenet_v3, efficientnet, efficientnet_v2, efficientnet_lite])
def test_families_of_tensorflow_pad_same_where_they_halve_images(make):
    found = dict(strided(make()))
    assert len(found) >= 5
    assert {layer.padding for layer in found.values()} == {"same"}
    assert {pair(layer.kernel_size) for layer in found.values()} <= {(3, 3), (5, 5)}


@pytest.mark.parametrize("make", [torch_resnet, torch_mobilenet_v2])
def test_families_of_torch_pad_both_sides(make):
    found = dict(strided(make()))
    assert len(found) >= 4
    assert all(layer.padding == pair(layer.kernel_size)[0] // 2 for layer in found.values())


def test_a_stage_of_resnet_strides_in_1x1_in_keras_and_in_3x3_in_torch():
    keras, torch = layers_of(resnet(), Conv), layers_of(torch_resnet((3, 4, 6, 3), bottleneck=True), Conv)
    assert [keras[f"conv3_block1_{n}_conv"].strides for n in (0, 1, 2, 3)] == [2, 2, 1, 1]
    assert [torch[f"layer2.0.{n}"].strides for n in ("downsample.0", "conv1", "conv2", "conv3")] == [2, 1, 2, 1]


def test_convolutions_of_resnet_have_biases_in_keras_alone():
    convs = layers_of(resnet(), Conv).values()
    assert sum(conv.filters for conv in convs if conv.use_bias) == 26_560
    assert not any(conv.use_bias for conv in layers_of(torch_resnet(bottleneck=True), Conv).values())


def test_the_first_pool_of_resnet_v2_counts_zeros_around_what_is_below_0():
    names = resnet_v2().layer_names
    at = names.index("pool1_pool")
    images = -np.ones((1, 6, 6, 1), np.float32)
    pooled = run(resnet_v2().layers[at - 1 : at + 1], images).reshape(3, 3)
    assert pooled.tolist() == [[0, 0, 0], [0, -1, -1], [0, -1, -1]]
    assert (run((MaxPool(3, 2, 1),), images) == -1).all()


def test_gelu_of_vit_and_convnext_is_the_exact_one():
    for spec, count in ((vit(), 12), (convnext(), 18)):
        used = [activation_spec(each.layer.activation) for each in spec.named]
        assert [found.function for found in used if found] == ["gelu"] * count
    x = jnp.linspace(-4, 4, 801)
    assert 4e-4 < float(jnp.abs(Activation("gelu").apply(x) - Activation("gelu_tanh").apply(x)).max()) < 6e-4


def test_pools_do_not_count_their_padding():
    """As in Keras; torch's Inception counts it."""
    found = [layer for layer in layers_of(inception_v3(), AveragePool).values() if layer.padding == "same"]
    assert len(found) == 9
    assert run((found[0],), np.ones((1, 5, 5, 1), np.float32)).min() == 1


@pytest.mark.parametrize(
    ("spec", "epsilon"),
    [
        (resnet(), 1.001e-5),
        (resnet_v2(), 1.001e-5),
        (torch_resnet(), 1e-5),
        (torch_mobilenet_v2(), 1e-5),
        (mobilenet(), 1e-3),
        (mobilenet_v2(), 1e-3),
        (mobilenet_v3(), 1e-3),
        (efficientnet(), 1e-3),
        (efficientnet_lite(), 1e-3),
        (efficientnet_lite(is_symmetric=True), 1e-5),
    ],
)
def test_batch_norms_have_the_epsilon_of_their_library(spec: Sequential, epsilon: float):
    assert {norm.epsilon for norm in layers_of(spec, BatchNorm).values()} == {epsilon}
