"""The catalogue: names, counts as published, files with hashes, ImageNet's classes."""

import re

import pytest

from engine.data.pictures.images import read_picture
from engine.importers.importing import imagenet_classes
from engine.importers.variants import VARIANTS


def test_imagenet_has_a_thousand_names_each_once():
    names = imagenet_classes()
    assert len(set(names)) == len(names) == 1000
    assert names[258] == "n02111889 Samoyed"
    assert all(re.fullmatch(r"n\d{8} \S.*", name) for name in names)


@pytest.mark.parametrize(
    ("name", "total", "trained", "without"),
    [
        ("mobilenet_128", 4_253_864, 4_231_976, 3_228_864),
        ("resnet50", 25_636_712, 25_583_592, 23_587_712),
        ("vgg16", 138_357_544, 138_357_544, 14_714_688),
        ("efficientnet_v2_s", 21_612_360, 21_458_488, 20_331_360),
        ("efficientnet_lite0", 4_694_024, 4_652_008, 3_413_024),
        ("vit_b16", 86_567_656, 86_567_656, 85_798_656),
    ],
)
def test_parameters_are_those_published(name: str, total: int, trained: int, without: int):
    variant = VARIANTS[name]
    assert (sum(variant.count()), variant.count()[0], sum(variant.count(top=False))) == (total, trained, without)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
def test_every_variant_says_where_it_is_from(variant):
    files = [each for each in (variant.with_top, variant.without_top) if each]
    assert files
    assert all(each.url.startswith("https://") for each in files)
    known = r"md5:[0-9a-f]{32}|sha256:([0-9a-f]{8}|[0-9a-f]{64})"
    assert all(each.hash is None or re.fullmatch(known, each.hash) for each in files)
    assert variant.terms.licence
    assert "arXiv:" in variant.terms.citation
    spec = variant.contract.spec((variant.size, variant.size))
    assert spec.shape == (variant.size, variant.size, 3)
    assert variant.contract.text()


def test_only_weights_whose_publisher_names_no_hash_have_none():
    unknown = {name for name, variant in VARIANTS.items() if variant.with_top and variant.with_top.hash is None}
    assert all(name.startswith(("mobilenet_", "vit_", "convnext_")) for name in unknown)


def test_a_contract_reads_pictures_in_its_size(tmp_path):
    from PIL import Image

    Image.new("RGB", (40, 30), (10, 20, 30)).save(tmp_path / "one.png")
    for name in ("resnet50", "resnet18"):
        assert read_picture(tmp_path / "one.png", VARIANTS[name].contract.spec((16, 16))).shape == (16, 16, 3)
