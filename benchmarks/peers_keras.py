"""A workload in Keras, on TensorFlow or on JAX, with `fit` and `predict`. See benchmarks/peers.py."""

import os
from typing import Any

import numpy as np

from benchmarks.peers_worker import Job, Unavailable
from engine.models import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
)
from engine.models.activations import activation_spec
from engine.models.blocks import Paths
from engine.models.shapes import pair


class KerasPeer:
    """uint8 images in host memory, rescaled by the model's first layer, as in the tutorials.

    is_compiled: XLA, which Keras chooses by itself ("auto"), or on TensorFlow its own kernels.
    """

    def __init__(self, job: Job, backend: str, steps_per_call: int = 1, is_compiled: bool = True):
        os.environ["KERAS_BACKEND"] = backend
        import keras

        self.job = job
        _set_precision(job.precision, backend)
        workload, config = job.workload, job.workload.config()
        inputs = keras.Input(workload.input_shape)
        layers, count = workload.model().layers, workload.num_frozen
        trunk: Any = keras.Model(inputs, _apply(layers[:count], keras.layers.Rescaling(1 / 255)(inputs)))
        x = _apply(layers[count:], trunk.output)
        is_binary = workload.num_outputs == 1
        self.model: Any = keras.Model(inputs, keras.layers.Activation("linear", dtype="float32")(x))
        self.num_params = sum(int(np.prod(weight.shape)) for weight in self.model.trainable_weights)
        trunk.trainable = not count  # batch norms too are then as in evaluation
        optimizers = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}
        losses = keras.losses
        steps = steps_per_call if job.inference else min(steps_per_call, job.num_images // workload.batch_size)
        self.model.compile(
            optimizers[config.optim.name](config.optim.learning_rate),
            losses.BinaryCrossentropy(True) if is_binary else losses.SparseCategoricalCrossentropy(True),
            jit_compile="auto" if is_compiled else False,
            steps_per_execution=steps,
        )
        self._probabilities = _sigmoid if is_binary else _softmax
        self.data = workload.images(job.num_images)

    def train(self, epochs: int) -> None:
        """Trains; `fit` returns numbers, so the device is done."""
        images, labels = np.asarray(self.data.images), self.data.labels
        self.model.fit(images, labels, self.job.workload.batch_size, epochs, verbose=0, shuffle=True)

    def predict(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """uint8[n h w c] → float32[n k], in batches."""
        return self._probabilities(self.model.predict(images, batch_size, verbose=0))


def _apply(layers: Any, x: Any) -> Any:
    """What layers, one after the other, make of a Keras tensor."""
    import keras

    for layer in layers:
        if isinstance(layer, Paths):
            assert layer.join == "add"
            x = keras.layers.Add()([_apply(path, x) for path in layer.paths])
        else:
            padding = getattr(layer, "padding", "same")
            if not isinstance(padding, str):
                kind = keras.layers.ZeroPadding2D  # of what is not below 0, so that a max-pool may be padded with it
                x = kind(padding if isinstance(padding, int) else tuple(map(tuple, padding)))(x)
            x = _layer(layer, padding if isinstance(padding, str) else "valid")(x)
        if activation := activation_spec(layer.activation):
            x = keras.layers.Activation(str(activation.function))(x)
    return x


def _layer(layer: Any, padding: str) -> Any:
    import keras

    match layer:
        case Conv(filters, kernel_size, strides):
            return keras.layers.Conv2D(filters, pair(kernel_size), pair(strides), padding, use_bias=layer.use_bias)
        case DepthwiseConv(kernel_size, strides):
            return keras.layers.DepthwiseConv2D(pair(kernel_size), pair(strides), padding, use_bias=layer.use_bias)
        case BatchNorm(momentum, epsilon):
            return keras.layers.BatchNormalization(momentum=momentum, epsilon=epsilon)
        case Activation():
            return keras.layers.Identity()  # its activation follows
        case GlobalAveragePool():
            return keras.layers.GlobalAveragePooling2D()
        case MaxPool(size, strides):
            return keras.layers.MaxPooling2D(pair(size), pair(strides or size), padding)
        case Flatten():
            return keras.layers.Flatten()
        case Dropout(rate):
            return keras.layers.Dropout(rate)
        case Dense(units):
            return keras.layers.Dense(units, use_bias=layer.use_bias)
    raise TypeError(f"no counterpart of {layer}")


def _softmax(outputs: np.ndarray) -> np.ndarray:
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _sigmoid(outputs: np.ndarray) -> np.ndarray:
    positive = 1 / (1 + np.exp(-outputs))
    return np.concatenate([1 - positive, positive], axis=1)


def _set_precision(precision: str, backend: str) -> None:
    import keras

    if precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    if backend == "jax":
        from benchmarks.peers_flax import set_precision

        set_precision(precision)
        return
    import tensorflow as tf

    if precision == "tf32" and not tf.config.list_physical_devices("GPU"):
        raise Unavailable("TF32 needs an NVIDIA GPU")
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")


def build(job: Job) -> KerasPeer:
    """The variant that the job names."""
    return KerasPeer(job, **job.options)
