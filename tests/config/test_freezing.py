"""Which layers a name or a pattern freezes, at any depth."""

import pytest

from engine import FineTuneConfig, InputError, RunConfig
from engine.config.finetune import dotted_names, freezings, frozen_layers, layer_names, name_problems, shortened
from engine.models import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    DropPath,
    Flatten,
    GlobalAveragePool,
    LayerNorm,
    Sequential,
    residual,
)
from engine.networks.layer_names import layers_of
from engine.training.freezing import Phase

FOLDED = Activation("relu", name="conv2_out")
NET = Sequential(
    (
        *(Conv(4, name="conv1"), BatchNorm(name="conv1_bn"), Activation("relu", name="conv1_relu")),
        residual((Conv(4, 1, name="conv2_a"), BatchNorm(), DropPath(0.1)), activation=FOLDED, name="conv2"),
        residual((Conv(4, 1, name="layer3.0.conv"), BatchNorm()), name="layer3.0"),
        *(GlobalAveragePool(), Dense(name="predictions")),
    )
)
LAYERS = layer_names(NET.named)
CONV2 = {"conv2_a", "conv2.batch_norm_1", "conv2.drop_path_1"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"freeze": ("conv1_*",)}, {"conv1_bn", "conv1_relu"}),
        ({"freeze": ("conv2",)}, CONV2),
        ({"freeze": ("conv2_out",)}, CONV2),
        ({"freeze": ("conv2_a",)}, {"conv2_a"}),
        ({"freeze": ("layer3",)}, {"layer3.0.conv", "layer3.0.batch_norm_1"}),
        ({"freeze": ("*batch_norm_1",)}, {"conv2.batch_norm_1", "layer3.0.batch_norm_1"}),
        ({"freeze_first": 4}, {"conv1", "conv1_bn", "conv1_relu", *CONV2}),
        ({"freeze_until": "conv1_relu"}, {"conv1", "conv1_bn", "conv1_relu"}),
        ({"freeze_until": "conv2"}, {"conv1", "conv1_bn", "conv1_relu", *CONV2}),
        ({"freeze_until": "conv2_out"}, {"conv1", "conv1_bn", "conv1_relu", *CONV2}),
        ({"freeze_until": "conv2_a"}, {"conv1", "conv1_bn", "conv1_relu", "conv2_a"}),
        ({"freeze": ("predictions",), "freeze_first": 1}, {"predictions", "conv1"}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "frozen",  # sets have no order
)
def test_pattern_freezes_layers_blocks_and_what_is_in_them(settings, expected: set[str]):
    config = FineTuneConfig(**settings)
    assert frozen_layers(config, LAYERS, 0) == expected
    assert {layer.name for fits in freezings(config, LAYERS).values() for layer in fits} == expected
    RunConfig("r", NET, finetune=config)


def test_unfreezing_takes_patterns_of_blocks_too():
    config = FineTuneConfig(freeze=("*",), unfreeze=("2:conv2", "3:layer3.0.conv"))
    assert frozen_layers(config, LAYERS, 1) - frozen_layers(config, LAYERS, 2) == CONV2
    assert frozen_layers(config, LAYERS, 2) - frozen_layers(config, LAYERS, 3) == {"layer3.0.conv"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze_until": "conv9"}, "finetune.freeze_until: got 'conv9'; expected one of conv1"),
        ({"freeze": ("conv2_b",)}, "finetune.freeze: got 'conv2_b'.*Did you mean 'conv2_a'"),
        ({"freeze": ("conv1",), "unfreeze": ("2:conv2",)}, r"expected frozen layers \(conv1\)"),
    ],
)
def test_name_that_is_none_is_refused_with_the_nearest(settings, message: str):
    with pytest.raises(InputError, match=message):
        RunConfig("r", NET, finetune=FineTuneConfig(**settings))


def test_names_of_a_large_model_are_not_all_listed():
    large = Sequential(tuple(Conv(2, 1, name=f"layer_{n}") for n in range(100)))
    with pytest.raises(InputError, match=r"one of 100 names: layer_0, .*Did you mean 'layer_77'") as told:
        RunConfig("r", large, finetune=FineTuneConfig(freeze=("layer_77x",)))
    assert len(str(told.value)) < 200


def test_class_of_ones_own_has_no_layer_to_freeze_until():
    names = dotted_names(["encoder.conv", "head"])
    assert frozen_layers(FineTuneConfig(freeze=("encoder",)), names, 0) == {"encoder.conv"}
    (told,) = name_problems(FineTuneConfig(freeze_until="head"), names, are_ordered=False)
    assert "finetune.freeze_until: got head; expected none for a class of your own" in told


@pytest.mark.parametrize(
    ("settings", "cut"),
    [
        ({"freeze_until": "conv1_relu"}, 3),
        ({"freeze": ("conv1_bn",)}, 0),
        ({"freeze_first": 4}, 4),
        ({"freeze_first": 3, "freeze": ("conv2_a", "conv2.batch_norm_1")}, 3),  # drop path is random
        ({"freeze_until": "layer3.0"}, 6),
        ({"freeze_first": 3, "freeze": ("layer3",)}, 3),
    ],
    ids=str,
)
def test_cut_lies_between_blocks_below_what_trains_or_draws(settings, cut: int):
    assert Phase(FineTuneConfig(**settings), layers_of(NET, None), 0).cut == cut


def test_new_head_takes_the_place_of_all_after_the_trunk():
    head = (GlobalAveragePool(), LayerNorm(), Dense(3))
    assert NET.with_head(head).layers == (*NET.layers[:5], *head)
    trunk = Sequential(NET.layers[:5])
    assert trunk.with_head(head).layers == (*NET.layers[:5], *head)
    assert Sequential((Flatten(), Dense())).with_head((Flatten(), Dense(2))).layers == (Flatten(), Dense(2))


def test_many_names_are_shortened():
    assert shortened("abc") == "a, b, c"
    assert shortened("abcdefgh") == "a, b, c, d, … h"
