"""Families of published networks, as functions that return specs, for weights from elsewhere or from scratch.

Each takes images of any size, with three channels or any other number of them. Their input is what their weights were
trained on: scaling of pixels belongs to the input contract of a run, and is no layer. Layers of families that Keras has
are named as there; its layers that only pad are the padding of the next convolution here. ResNet and MobileNetV2 of
torch, which pad and stride otherwise, EfficientNet-Lite and ViT have the names of timm's modules.
"""

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

__all__ = [
    "convnext",
    "densenet",
    "efficientnet",
    "efficientnet_lite",
    "efficientnet_v2",
    "inception_v3",
    "mobilenet",
    "mobilenet_v2",
    "mobilenet_v3",
    "resnet",
    "resnet_v2",
    "torch_mobilenet_v2",
    "torch_resnet",
    "vgg",
    "vit",
    "xception",
]
