"""Many members of one model trained side by side in PyTorch: torch.func's vmap over stacked parameters."""

import copy
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, stack_module_state
from torch.nn import functional

from benchmarks.peers_torch import network
from benchmarks.peers_worker import Job, Unavailable


class TorchEnsemble:
    """Stacked parameters, a batch of its own for each member, one call of the optimizer for all."""

    def __init__(self, job: Job, members: int):
        workload = job.workload
        if workload.config().optim.name != "rmsprop":
            raise Unavailable("built for RMSprop")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.job, self.members = job, members
        spec, shape = workload.model(), workload.input_shape
        modules = [network(spec, shape, channels_last=False).to(self.device) for _ in range(members)]
        self.num_params = sum(parameter.numel() for parameter in modules[0].parameters())
        self.params, _ = stack_module_state(modules)
        self._skeleton = copy.deepcopy(modules[0]).to("meta")
        rate = workload.config().optim.learning_rate
        self._optimizer: Any = torch.optim.RMSprop(self.params.values(), rate, alpha=0.9, eps=1e-7, foreach=True)
        data = workload.images(job.num_images)
        images = torch.from_numpy(np.asarray(data.images)).to(self.device).float().div_(255)
        self.images = images.permute(0, 3, 1, 2).contiguous()  # [n h w c] → [n c h w]
        self.labels = torch.from_numpy(data.labels).to(self.device).long()

    def _loss(self, params: Any, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(functional_call(self._skeleton, params, (images,)), labels)

    def train(self, epochs: int) -> None:
        """Trains; returns when the device is done."""
        size = self.job.workload.batch_size
        losses = torch.vmap(self._loss)
        for _ in range(epochs):
            shuffled = [torch.randperm(self.job.num_images, device=self.device) for _ in range(self.members)]
            for chosen in torch.stack(shuffled).split(size, dim=1):  # [m n] → [m b]
                self._optimizer.zero_grad(set_to_none=True)
                losses(self.params, self.images[chosen], self.labels[chosen]).sum().backward()
                self._optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def predict(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """Not measured here."""
        raise Unavailable("prediction of ensembles is not compared")


def build(job: Job) -> TorchEnsemble:
    """The variant that the job names."""
    return TorchEnsemble(job, **job.options)
