"""A workload in the engine, for benchmarks/peers.py."""

import numpy as np

from benchmarks.peers_worker import Job
from benchmarks.throughput import Training, with_precision


class EnginePeer:
    """A run's own session, which trains, and the classifier that it makes."""

    def __init__(self, job: Job):
        config = with_precision(job.workload.config(), job.precision)
        self._training = Training(config, data=job.workload.images(job.num_images))
        self.num_params = self._training.session.num_params
        self._classifier = self._training.session.classifier() if job.inference else None

    def train(self, epochs: int) -> None:
        """Trains; returns when the device is done."""
        for _ in range(epochs):
            self._training.train_epoch()

    def predict(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """uint8[n h w c] → float32[n k], in batches of the classifier's own size."""
        assert self._classifier is not None
        return self._classifier.outputs(images)


def build(job: Job) -> EnginePeer:
    """The only variant."""
    return EnginePeer(job)
