"""The table of all that can be imported by name."""

import difflib
from collections.abc import Iterator

from engine.errors import InputError, problem
from engine.importers import catalogue as c
from engine.importers.catalogue import Variant, of_keras, of_torch
from engine.models.families.convnext import convnext
from engine.models.families.densenet import densenet
from engine.models.families.efficientnet import efficientnet, efficientnet_v2
from engine.models.families.efficientnet_lite import efficientnet_lite, torch_mobilenet_v2
from engine.models.families.inception import inception_v3
from engine.models.families.mobilenet import mobilenet
from engine.models.families.mobilenet_v2 import mobilenet_v2
from engine.models.families.mobilenet_v3 import mobilenet_v3
from engine.models.families.resnet import resnet, resnet_v2
from engine.models.families.torch_resnet import torch_resnet
from engine.models.families.vgg import vgg
from engine.models.families.vit import vit
from engine.models.families.xception import xception

KERNELS = "_weights_tf_dim_ordering_tf_kernels{}.h5"


def _rows() -> Iterator[Variant]:
    yield from _vgg()
    yield from _resnet()
    yield from _mobilenet()
    yield from _efficientnet()
    yield from _others()


def _vgg() -> Iterator[Variant]:
    for name, convs, *digests in (
        ("vgg16", (2, 2, 3, 3, 3), "64373286793e3c8b2b4e3219cbf3544b", "6d6bbae143d832006294945121d1f1fc"),
        ("vgg19", (2, 2, 4, 4, 4), "cbe5617147190e668d6c5d5026f83318", "253f8cb515780f3b799900260a226db6"),
    ):
        yield of_keras(name, vgg, {"convs": convs}, c.CAFFE, c.VGG, f"{name}/{name}{KERNELS}", digests)


def _resnet() -> Iterator[Variant]:
    for name, blocks, *digests in (
        ("resnet50", (3, 4, 6, 3), "2cb95161c43110f7111970584f804107", "4d473c1dd8becc155b73f8504c6f6626"),
        ("resnet101", (3, 4, 23, 3), "f1aeb4b969a6efcfb50fad2f0c20cfc5", "88cf7a10940856eca736dc7b7e228a21"),
        ("resnet152", (3, 8, 36, 3), "100835be76be38e30d865e96f2aaae62", "ee4c566cf9a93f14d82f913c2dc6dd0c"),
    ):
        yield of_keras(name, resnet, {"blocks": blocks}, c.CAFFE, c.RESNET, f"resnet/{name}{KERNELS}", digests)
    for name, blocks, *digests in (
        ("resnet50v2", (3, 4, 6, 3), "3ef43a0b657b3be2300d5770ece849e0", "fac2f116257151a9d068a22e544a4917"),
        ("resnet101v2", (3, 4, 23, 3), "6343647c601c52e1368623803854d971", "c0ed64b8031c3730f411d2eb4eea35b5"),
        ("resnet152v2", (3, 8, 36, 3), "a49b44d1979771252814e80f8ec446f9", "ed17cf2e0169df9d443503ef94b23b33"),
    ):
        file = f"resnet/{name}{KERNELS}"
        yield of_keras(name, resnet_v2, {"blocks": blocks}, c.FROM_MINUS_1, c.RESNET_V2, file, digests)
    for name, blocks, is_deep, file in (
        ("resnet18", (2, 2, 2, 2), False, "resnet18-f37072fd.pth"),
        ("resnet34", (3, 4, 6, 3), False, "resnet34-b627a593.pth"),
        ("resnet50_torch", (3, 4, 6, 3), True, "resnet50-0676ba61.pth"),
        ("resnet101_torch", (3, 4, 23, 3), True, "resnet101-63fe2227.pth"),
    ):
        arguments, hub = {"blocks": blocks, "bottleneck": is_deep}, f"timm/{name.removesuffix('_torch')}.tv_in1k"
        yield of_torch(name, torch_resnet, arguments, c.BY_TORCH, c.TORCH_RESNET, c.TORCH + file, hub)


def _mobilenet() -> Iterator[Variant]:
    for width, called in ((1.0, "1_0"), (0.75, "7_5"), (0.5, "5_0"), (0.25, "2_5")):
        for size in (128, 160, 192, 224):
            name = f"mobilenet_{'' if width == 1 else f'{width * 100:.0f}_'}{size}"
            file = f"mobilenet/mobilenet_{called}_{size}_tf{{}}.h5"
            yield of_keras(
                name, mobilenet, {"width": width}, c.FROM_MINUS_1, c.MOBILENET, file, size=size, no_top="_no_top"
            )
    for width in (1.0, 1.4, 1.3, 0.75, 0.5, 0.35):
        for size in (96, 128, 160, 192, 224) if width <= 1 else (224,):
            name = f"mobilenet_v2_{'' if width == 1 else f'{width * 100:.0f}_'}{size}"
            file = f"mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{width}_{size}{{}}.h5"
            yield of_keras(
                name, mobilenet_v2, {"width": width}, c.FROM_MINUS_1, c.MOBILENET_V2, file, size=size, no_top="_no_top"
            )
    for kind, *digests in (
        ("small", "8768d4c2e7dee89b9d02b2d03d65d862", "d3e8ec802a04aa4fc771ee12a9a9b836"),
        ("large", "59e551e166be033d707958cf9e29a6a7", "07fb09a5933dd0c8eaafa16978110389"),
    ):
        file = f"mobilenet_v3/weights_mobilenet_v3_{kind}_224_1.0_float{{}}.h5"
        arguments, name = {"size": kind}, f"mobilenet_v3_{kind}"
        yield of_keras(
            name, mobilenet_v3, arguments, c.FROM_MINUS_1, c.MOBILENET_V3, file, digests, no_top="_no_top_v2"
        )
    for kind, recipe, digits in (("small", "lamb", "266a294c"), ("large", "ra", "f55367f5")):
        file = f"{c.TIMM}mobilenetv3_{kind}_100_{recipe}-{digits}.pth"
        name, hub = f"mobilenet_v3_{kind}_torch", f"timm/mobilenetv3_{kind}_100.{recipe}_in1k"
        arguments = {"size": kind, "is_symmetric": True}
        yield of_torch(name, mobilenet_v3, arguments, c.BY_TIMM, c.MOBILENET_V3, file, hub)
    file, hub = c.TIMM + "mobilenetv2_100_ra-b33bc2c4.pth", "timm/mobilenetv2_100.ra_in1k"
    yield of_torch("mobilenet_v2_torch", torch_mobilenet_v2, {}, c.BY_TIMM, c.MOBILENET_V2, file, hub)


def _efficientnet() -> Iterator[Variant]:
    for number, (size, *digests) in enumerate(
        (
            (224, "902e53a9f72be733fc0bcb005b3ebbac", "50bc09e76180e00e4465e1a485ddc09d"),
            (240, "1d254153d4ab51201f1646940f018540", "74c4e6b3e1f6a1eea24c589628592432"),
            (260, "b15cce36ff4dcbd00b6dd88e7857a6ad", "111f8e2ac8aa800a7a99e3239f7bfb39"),
            (300, "ffd1fdc53d0ce67064dc6a9c7960ede0", "af6d107764bb5b1abb91932881670226"),
            (380, "18c95ad55216b8f92d7e70b3a046e2fc", "ebc24e6d6c33eaebbd558eafbeedf1ba"),
            (456, "ace28f2a6363774853a83a0b21b9421a", "38879255a25d3c92d5e44e04ae6cec6f"),
            (528, "165f6e37dce68623721b423839de8be5", "9ecce42647a20130c1f39a5d4cb75743"),
            (600, "8c03f828fec3ef71311cd463b6759d99", "cbcfe4450ddf6f3ad90b1b398090fe4a"),
        )
    ):
        file = f"https://storage.googleapis.com/keras-applications/efficientnetb{number}{{}}.h5"
        arguments = {"size": f"b{number}"}
        yield of_keras(
            f"efficientnet_b{number}", efficientnet, arguments, c.AS_TORCH, c.EFFICIENT, file, digests, size,
            is_ambiguous=True,
        )  # fmt: skip
    for kind, size, *digests in (
        ("b0", 224, "21ecbf6da12460d5c40bb2f29ceb2188", "893217f2bb855e2983157299931e43ff"),
        ("b1", 240, "069f0534ff22adf035c89e2d9547a9dc", "0e80663031ca32d657f9caa404b6ec37"),
        ("b2", 260, "424e49f28180edbde1e94797771950a7", "1dfe2e7a5d45b6632553a8961ea609eb"),
        ("b3", 300, "1f1fc43bd98a6e4fd8fdfd551e02c7a0", "f6abf7b5849ac99a89b50dd3fd532856"),
        ("s", 384, "e1d88a8495beba45748fedd0cecbe016", "af0682fb74e8c54910f2d4393339c070"),
    ):
        contract = c.FROM_MINUS_1_BY_128 if kind == "s" else c.AS_TORCH
        file, name = f"efficientnet_v2/efficientnetv2-{kind}{{}}.h5", f"efficientnet_v2_{kind}"
        yield of_keras(name, efficientnet_v2, {"size": kind}, contract, c.EFFICIENT_V2, file, digests, size)
    for number, (size, width, depth, dropout, share, digits) in enumerate(
        (
            (224, 1.0, 1.0, 0.2, 0.875, "0aa007d2"),
            (240, 1.0, 1.1, 0.2, 0.882, "bde8b488"),
            (260, 1.1, 1.2, 0.3, 0.89, "dcccb7df"),
            (300, 1.2, 1.4, 0.3, 0.904, "b733e338"),
            (380, 1.4, 1.8, 0.3, 0.92, "741542c3"),
        )
    ):
        arguments = {"width": width, "depth": depth, "dropout": dropout}
        contract = c.LITE._replace(crop_share=share, interpolation="bicubic" if number < 3 else "bilinear")
        name, hub = f"tf_efficientnet_lite{number}", f"timm/tf_efficientnet_lite{number}.in1k"
        file = f"{c.TIMM}{name}-{digits}.pth"
        name = name.removeprefix("tf_")
        yield of_torch(name, efficientnet_lite, arguments, contract, c.EFFICIENT, file, hub, size)
    own, hub = c.TIMM + "efficientnet_lite0_ra-37913777.pth", "timm/efficientnet_lite0.ra_in1k"
    symmetric = {"is_symmetric": True}  # the same names and shapes as above
    yield of_torch("efficientnet_lite0_timm", efficientnet_lite, symmetric, c.BY_TIMM, c.EFFICIENT, own, hub)


def _others() -> Iterator[Variant]:
    for name, blocks, *digests in (
        ("densenet121", (6, 12, 24, 16), "9d60b8095a5708f2dcce2bca79d332c7", "30ee3e1110167f948a6b9946edeeb738"),
        ("densenet169", (6, 12, 32, 32), "d699b8f76981ab1b30698df4c175e90b", "b8c4d4c20dd625c148057b9ff1c1176b"),
        ("densenet201", (6, 12, 48, 32), "1ceb130c1ea1b78c3bf6114dbdfd8807", "c13680b51ded0fb44dff2d8f86ac8bb1"),
    ):
        yield of_keras(name, densenet, {"blocks": blocks}, c.AS_TORCH, c.DENSE, f"densenet/{name}{KERNELS}", digests)
    digests = ["9a0d58056eeedaa3f26cb7ebd46da564", "bcbd6486424b2319ff4ef7d526e38f63"]
    file = f"inception_v3/inception_v3{KERNELS}"
    yield of_keras("inception_v3", inception_v3, {}, c.FROM_MINUS_1, c.INCEPTION, file, digests, 299)
    digests = ["0a58e3b7378bc2990ea3b43d5981f1f6", "b0042744bf5b25fce3cb969f33bebb97"]
    yield of_keras("xception", xception, {}, c.FROM_MINUS_1, c.XCEPTION, f"xception/xception{KERNELS}", digests, 299)
    for size, *digests in (
        (
            "tiny",
            "8ae6e78ce2933352b1ef4008e6dd2f17bc40771563877d156bc6426c7cf503ff",
            "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
        ),
        (
            "small",
            "ce1277d8f1ee5a0ef0e171469089c18f5233860ceaf9b168049cb9263fd7483c",
            "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab",
        ),
    ):
        file = f"convnext/convnext_{size}{{}}.h5"
        yield of_keras(
            f"convnext_{size}", convnext, {"size": size}, c.AS_TORCH, c.CONVNEXT, file, digests, algorithm="sha256"
        )
        hub = f"timm/convnext_{size}.fb_in1k"
        yield of_torch(f"convnext_{size}_torch", convnext, {"size": size}, c.BY_TIMM, c.CONVNEXT, None, hub)
    for name, arguments, hub in (
        ("vit_s16", {"width": 384, "heads": 6}, "timm/vit_small_patch16_224.augreg_in21k_ft_in1k"),
        ("vit_b16", {"width": 768, "heads": 12}, "timm/vit_base_patch16_224.augreg_in21k_ft_in1k"),
    ):
        yield of_torch(name, vit, arguments, c.VIT_INPUTS, c.VIT, None, hub)


VARIANTS: dict[str, Variant] = {variant.name: variant for variant in _rows()}


def find_variant(name: str) -> Variant:
    """The variant of a name; raises InputError with the nearest for another."""
    if name not in VARIANTS:
        near = difflib.get_close_matches(name, VARIANTS, n=3, cutoff=0.4)
        remedy = f"Did you mean {', '.join(near)}?" if near else "Choose one of these."
        raise InputError(problem("model", repr(name[:80]), "a name that `engine families` lists", remedy))
    return VARIANTS[name]
