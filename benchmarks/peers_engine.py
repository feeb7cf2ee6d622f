"""A workload in the engine, for benchmarks/peers.py."""

from dataclasses import replace

import jax
import numpy as np

from benchmarks.peers_worker import Job, Unavailable
from benchmarks.throughput import Training, with_precision
from engine.devices.precision import check_precision
from engine.errors import InputError
from engine.host.memory import keep_freed_memory


class EnginePeer:
    """A run's own session, which trains, and the classifier that it makes."""

    def __init__(self, job: Job, plan_mode: str = "auto"):
        keep_freed_memory()  # as `engine.fit` does first
        config = with_precision(job.workload.config(), job.precision)
        config = replace(config, plan=replace(config.plan, mode=plan_mode))
        try:
            check_precision(job.precision, jax.devices()[0])
            self._training = Training(config, job.workload.images(job.num_images))
        except InputError as error:
            raise Unavailable(str(error)) from None
        self._at_once = job.workload.predicted_at_once
        self.num_params = self._training.session.setup.model.num_params
        self._classifier = self._training.session.classifier() if job.inference else None

    def train(self, epochs: int) -> None:
        """Trains; returns when the device is done."""
        for _ in range(epochs):
            self._training.train_epoch()

    def predict(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """uint8[n h w c] → float32[n k], in batches of the classifier's own size, unless the workload says which."""
        assert self._classifier is not None
        at_once = self._at_once or len(images)
        parts = [self._classifier.outputs(images[n : n + at_once]) for n in range(0, len(images), at_once)]
        return np.concatenate(parts)


def build(job: Job) -> EnginePeer:
    """The engine, by the plan that the job names."""
    return EnginePeer(job, **job.options)
