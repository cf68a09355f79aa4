"""What precision arithmetic has."""

from types import SimpleNamespace

import pytest
import torch

from mmbeit.layers.autocast import tf32_products


def on(device: str) -> SimpleNamespace:
    return SimpleNamespace(device=torch.device(device))


@pytest.mark.parametrize('before', ['highest', 'medium'])
def test_tf32_is_allowed_on_gpus_and_only_inside(before):
    default = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    try:
        with pytest.raises(ZeroDivisionError), tf32_products(on('cuda')):
            assert torch.get_float32_matmul_precision() == 'high'
            1 / 0  # noqa: B018
        assert torch.get_float32_matmul_precision() == before
        with tf32_products(on('cpu')):
            assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision(default)
