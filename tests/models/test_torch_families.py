"""Families with the names of timm's modules: their counts are those of timm, from the specs alone."""

import pytest

from engine.errors import InputError
from engine.models import Sequential
from engine.models.families import efficientnet_lite, torch_mobilenet_v2, torch_resnet, vit
from engine.records import from_json, to_json

RESNET18, RESNET50 = torch_resnet(num_classes=1000), torch_resnet((3, 4, 6, 3), bottleneck=True, num_classes=1000)
LITE = [(1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8)]
COUNTED = [
    (RESNET18, 11_689_512, 9_600),
    (torch_resnet((3, 4, 6, 3), num_classes=1000), 21_797_672, 17_024),
    (RESNET50, 25_557_032, 53_120),
    (torch_resnet((3, 4, 23, 3), bottleneck=True, num_classes=1000), 44_549_160, 105_344),
    (torch_resnet((3, 8, 36, 3), bottleneck=True, num_classes=1000), 60_192_808, 151_424),
    *(
        (efficientnet_lite(*scale, num_classes=1000), *counts)
        for scale, counts in zip(
            LITE,
            [(4_652_008, 42_016), (5_416_680, 53_664), (6_092_072, 58_096), (8_197_096, 76_672), (13_006_568, 112_368)],
            strict=True,
        )
    ),
    (torch_mobilenet_v2(num_classes=1000), 3_504_872, 34_112),
    (torch_mobilenet_v2(1.4, num_classes=1000), 6_108_776, 47_936),
    (vit(num_classes=1000), 22_050_664, 0),
    (vit(768, 12, 12, num_classes=1000), 86_567_656, 0),
]


@pytest.mark.parametrize(("spec", "trained", "statistics"), COUNTED)
def test_counts_are_those_of_timm(spec: Sequential, trained: int, statistics: int):
    assert (spec.num_params((224, 224, 3)), spec.num_statistics((224, 224, 3))) == (trained, statistics)


@pytest.mark.parametrize(
    ("make", "features"),
    [
        (torch_resnet, (7, 6, 512)),
        (lambda top: torch_resnet((3, 4, 6, 3), bottleneck=True, top=top), (7, 6, 2048)),
        (efficientnet_lite, (7, 6, 1280)),
        (lambda top: torch_mobilenet_v2(0.5, top=top), (7, 6, 1280)),
    ],
)
def test_without_top_it_ends_with_feature_maps_of_any_image(make, features: tuple[int, ...]):
    assert make(top=False).output_shape((197, 180, 3)) == features


def test_vit_without_top_ends_with_the_class_token():
    assert vit(top=False).output_shape((224, 224, 3)) == (384,)
    assert vit(patch=32, top=False).num_params((224, 224, 3)) > 21_000_000


@pytest.mark.parametrize(("size", "expected"), [(224, (7, 7)), (180, (6, 6)), (197, (7, 7))])
def test_a_side_is_halved_five_times_rounding_up(size: int, expected: tuple[int, int]):
    for make in (torch_resnet, efficientnet_lite, torch_mobilenet_v2):
        assert make(top=False).output_shape((size, size, 3))[:2] == expected


def test_layers_have_the_names_of_modules():
    names = {each.name for each in RESNET50.named}
    assert {"conv1", "bn1", "layer1.0.downsample.0", "layer3.5", "layer3.5.conv3", "fc"} <= names
    assert "layer1.1.downsample.0" not in names
    assert {"blocks.1.0", "blocks.1.0.conv_pwl"} <= {each.name for each in efficientnet_lite().named}
    assert "blocks.11" in {each.name for each in vit().named}
    within = next(each for each in vit().named if each.name == "blocks.3.attn")
    assert "blocks.3" in within.answers_to


def test_records_keep_it():
    for spec in (RESNET50, efficientnet_lite(), vit()):
        assert from_json(Sequential, to_json(spec)) == spec


def test_a_stage_without_blocks_is_refused():
    with pytest.raises(InputError, match="torch_resnet blocks: got 0; expected"):
        torch_resnet((2, 0, 2, 2))
    with pytest.raises(InputError, match="torch_resnet blocks: got 3 stages; expected 4"):
        torch_resnet((2, 2, 2))
