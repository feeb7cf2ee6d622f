"""A workload in Keras, on TensorFlow or on JAX, with `fit` and `predict`. See benchmarks/peers.py."""

import os
from typing import Any

import numpy as np

from benchmarks.peers_worker import Job, Unavailable
from engine.models import Conv, Dense, Dropout, Flatten, MaxPool
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
        layers: list[Any] = [keras.Input(workload.input_shape), keras.layers.Rescaling(1 / 255)]
        layers += [_layer(layer) for layer in workload.model().layers]
        is_binary = workload.num_outputs == 1
        layers.append(keras.layers.Activation("linear", dtype="float32"))
        self.model: Any = keras.Sequential(layers)
        self.num_params = self.model.count_params()
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


def _layer(layer: Any) -> Any:
    import keras

    match layer:
        case Conv(filters, kernel_size, strides, padding):
            return keras.layers.Conv2D(
                filters, pair(kernel_size), pair(strides), padding, activation=layer.activation, use_bias=layer.use_bias
            )
        case MaxPool(size, strides, padding):
            return keras.layers.MaxPooling2D(pair(size), pair(strides or size), padding)
        case Flatten():
            return keras.layers.Flatten()
        case Dropout(rate):
            return keras.layers.Dropout(rate)
        case Dense(units):
            return keras.layers.Dense(units, activation=layer.activation, use_bias=layer.use_bias)
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
