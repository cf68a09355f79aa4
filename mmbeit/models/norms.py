"""Batch norm over several processes where there is no GPU."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmbeit.registry import MODELS


class _SumOverProcesses(torch.autograd.Function):
    """Every process gets the sum of all, and so the gradient of every one is the sum, too."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _SumOverProcesses.forward(ctx, gradient)


@MODELS.register_module()
class CPUSyncBN(nn.BatchNorm2d):
    """`SyncBN` for processes on CPUs: in training, statistics are of the images of all processes.

    PyTorch's refuses tensors that are not on a GPU. In evaluation, and in one process, it is its parent.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise maps (B, C, h, w)."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        dims, shape = (0, 2, 3), (1, -1, 1, 1)
        count = x.new_tensor([x.numel() / x.shape[1]])
        total = _SumOverProcesses.apply(torch.cat([x.sum(dims), count]))
        mean, count = total[:-1] / total[-1], total[-1]
        centred = x - mean.view(shape)
        variance = _SumOverProcesses.apply(centred.square().sum(dims)) / count
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        x = centred * (variance + self.eps).rsqrt().view(shape)
        return x * self.weight.view(shape) + self.bias.view(shape)
