"""Families as specs: counts as published, names, shapes at any size, records. None of these needs JAX."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import engine
from engine.errors import InputError
from engine.models import Sequential, families
from engine.models.shapes import Shape
from engine.records import from_json, to_json

Make = Callable[..., Sequential]


def of(family: str, *arguments: Any) -> Make:
    """A family's function with its arguments, that takes the others."""
    return lambda **named: getattr(families, family)(*arguments, **named)


# All, trained and all without a top, as Keras 3.15 counts them for 1,000 classes. Of EfficientNet B0 to B7 it counts 7
# numbers more, with which it normalizes its inputs.
COUNTS: dict[str, tuple[Make, int, int, int]] = {
    "vgg16": (of("vgg", (2, 2, 3, 3, 3)), 138_357_544, 138_357_544, 14_714_688),
    "vgg19": (of("vgg", (2, 2, 4, 4, 4)), 143_667_240, 143_667_240, 20_024_384),
    "resnet50": (of("resnet", (3, 4, 6, 3)), 25_636_712, 25_583_592, 23_587_712),
    "resnet101": (of("resnet", (3, 4, 23, 3)), 44_707_176, 44_601_832, 42_658_176),
    "resnet152": (of("resnet", (3, 8, 36, 3)), 60_419_944, 60_268_520, 58_370_944),
    "resnet50_v2": (of("resnet_v2", (3, 4, 6, 3)), 25_613_800, 25_568_360, 23_564_800),
    "mobilenet": (of("mobilenet"), 4_253_864, 4_231_976, 3_228_864),
    "mobilenet_v2": (of("mobilenet_v2"), 3_538_984, 3_504_872, 2_257_984),
    "mobilenet_v3_small": (of("mobilenet_v3", "small"), 2_554_968, 2_542_856, 939_120),
    "mobilenet_v3_large": (of("mobilenet_v3", "large"), 5_507_432, 5_483_032, 2_996_352),
    "efficientnet_b0": (of("efficientnet", "b0"), 5_330_564, 5_288_548, 4_049_564),
    "efficientnet_b7": (of("efficientnet", "b7"), 66_658_680, 66_347_960, 64_097_680),
    "efficientnet_v2_b0": (of("efficientnet_v2", "b0"), 7_200_312, 7_139_704, 5_919_312),
    "efficientnet_v2_s": (of("efficientnet_v2", "s"), 21_612_360, 21_458_488, 20_331_360),
    "densenet121": (of("densenet", (6, 12, 24, 16)), 8_062_504, 7_978_856, 7_037_504),
    "inception_v3": (of("inception_v3"), 23_851_784, 23_817_352, 21_802_784),
    "xception": (of("xception"), 22_910_480, 22_855_952, 20_861_480),
    "convnext_tiny": (of("convnext", "tiny"), 28_589_128, 28_589_128, 27_820_128),
}


def count(spec: Sequential, shape: Shape = (224, 224, 3)) -> tuple[int, int]:
    """(all numbers, trained ones)."""
    trained = spec.num_params(shape)
    return trained + spec.num_statistics(shape), trained


@pytest.mark.parametrize("name", COUNTS)
def test_family_has_as_many_parameters_as_published(name: str):
    make, total, trained, without_top = COUNTS[name]
    assert (*count(make(num_classes=1000)), count(make(top=False))[0]) == (total, trained, without_top)


@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [
        ("mobilenet", 180, (5, 5, 1024)),
        ("mobilenet_v2", 143, (5, 5, 1280)),
        ("mobilenet_v3_small", 143, (5, 5, 576)),
        ("resnet50", 97, (4, 4, 2048)),
        ("densenet121", 180, (5, 5, 1024)),
        ("inception_v3", 299, (8, 8, 2048)),
        ("xception", 143, (5, 5, 2048)),
        ("efficientnet_b7", 143, (5, 5, 2560)),
        ("convnext_tiny", 180, (5, 5, 768)),
    ],
)
def test_features_have_the_shape_of_keras_at_any_size(name: str, size: int, shape: Shape):
    assert COUNTS[name][0](top=False).output_shape((size, size, 3)) == shape


@pytest.mark.parametrize("name", COUNTS)
def test_family_is_the_same_after_a_record(name: str):
    spec = COUNTS[name][0]()
    assert from_json(Sequential, json.loads(json.dumps(to_json(spec)))) == spec


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("mobilenet", ("conv1", "conv1_bn", "conv_dw_3_relu", "conv_pw_13_bn", "conv_preds")),
        ("mobilenet_v2", ("Conv1", "bn_Conv1", "expanded_conv_depthwise_BN", "block_13_expand_relu", "out_relu")),
        ("mobilenet_v3_small", ("expanded_conv_squeeze_excite_conv_1", "expanded_conv_10_project_bn", "logits")),
        ("resnet50", ("conv4_block6_2_conv", "conv4_block6", "conv2_block1_0_bn", "predictions")),
        ("resnet50_v2", ("conv2_block1_preact_bn", "conv3_block4_1_conv", "post_bn")),
        ("densenet121", ("conv5_block16_2_conv", "pool4_conv", "bn")),
        ("inception_v3", ("conv2d", "conv2d_93", "batch_normalization_93", "mixed10")),
        ("xception", ("conv2d_3", "block14_sepconv2", "block5_sepconv3_bn")),
        ("efficientnet_b0", ("block6d_se_excite", "block2b_drop", "block7a_dwconv", "top_conv")),
        ("efficientnet_v2_s", ("block6o_dwconv2", "block1a_project_activation", "block2a_expand_conv")),
        ("convnext_tiny", ("convnext_tiny_stage_3_block_2_layer_scale", "convnext_tiny_downsampling_conv_2")),
        ("vgg16", ("block5_conv3", "block5_pool", "fc2")),
    ],
)
def test_layers_have_the_names_of_keras(name: str, layers: tuple[str, ...]):
    assert set(layers) <= {each.name for each in COUNTS[name][0]().named}


@pytest.mark.parametrize(("family", "size"), [("efficientnet", "b8"), ("efficientnet_v2", "m"), ("convnext", "base"),
                                              ("mobilenet_v3", "medium")])  # fmt: skip
def test_unknown_size_is_refused_with_those_there_are(family: str, size: str):
    with pytest.raises(InputError, match=rf"{family} size: got '{size}'; expected one of "):
        getattr(families, family)(size)


def test_width_multiplies_channels_and_keeps_the_last_of_mobilenet_v2():
    assert count(families.mobilenet(0.25, top=False)) == (218_544, 213_072)  # Keras: 218,544, of which 213,072
    assert families.mobilenet_v2(0.35, top=False).output_shape((96, 96, 3)) == (3, 3, 1280)
    assert families.mobilenet_v2(1.4, top=False).output_shape((96, 96, 3)) == (3, 3, 1792)


def test_one_channel_is_taken_too():
    assert families.mobilenet(num_classes=10).output_shape((224, 224, 1)) == (10,)


@pytest.mark.long
def test_family_is_trained_from_scratch():
    images, labels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8), np.arange(8) % 3
    result = engine.fit(engine.models.resnet((1, 1, 1, 1)), (images, labels), epochs=1, batch_size=4, verbose=False)
    assert np.isfinite(result.history[0]["loss"])
