"""Who may not attend to whom, as what is added to the logits of attention: 0, or minus infinity.

Every row has to leave something to attend to: a softmax over nothing is NaN.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def blocking_bias(blocked: Tensor, dtype: torch.dtype) -> Tensor:
    """Minus infinity where `blocked` is True, else 0; of the same shape."""
    return torch.zeros(blocked.shape, dtype=dtype, device=blocked.device).masked_fill_(blocked, float('-inf'))


def padding_bias(padding_mask: Tensor, num_keys: int, dtype: torch.dtype) -> Tensor:
    """Keep everybody from attending to padding.

    Args:
        padding_mask: (B, T) bool, True = padding, of the text.
        num_keys: Tokens that are attended to: the T of the text, after all the others.
        dtype: Of the result.

    Returns:
        (B, 1, 1, num_keys).
    """
    return blocking_bias(F.pad(padding_mask, (num_keys - padding_mask.shape[1], 0)), dtype)[:, None, None]


def caption_bias(num_vision: int, num_text: int, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Text attends to the image, to itself and to the text before; the image to itself (BEiT-3, section 3.3).

    Returns:
        (1, 1, num_vision + num_text, num_vision + num_text).
    """
    length = num_vision + num_text
    position = torch.arange(length, device=device)
    blocked = position[None, :] > position[:, None].clamp(min=num_vision - 1)
    return blocking_bias(blocked, dtype)[None, None]
