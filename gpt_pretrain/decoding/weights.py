"""A model's matrices laid out for generation, where reading them is what takes the time.

One row at a time, a matrix product takes as long as its weights take to come from memory: fewer bytes, and an
order in which the processor reads them well, are all that helps.
"""

import torch
from torch import Tensor, nn

from gpt_pretrain.errors import InputError
from gpt_pretrain.model import GPTModel


def for_generation(model: GPTModel, dtype: str) -> GPTModel:
    """Take `model` over for generation with float32, bfloat16 or int8 weights; it cannot be trained after.

    On a CPU activations stay in float32; the embeddings that are looked up, a row a token, stay as they are.
    """
    device = model.tok_emb.weight.device
    if device.type == "cpu":
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, _laid_out(child, dtype))
    elif dtype == "int8":
        raise InputError("dtype=int8 is for the CPU: set dtype=bfloat16 or device=cpu")
    elif dtype == "bfloat16":
        model.to(torch.bfloat16)
    return model


def _laid_out(linear: nn.Linear, dtype: str) -> nn.Module:
    with torch.inference_mode():
        if dtype == "int8":
            return Int8Linear(linear)
        if dtype == "bfloat16":
            return HalfLinear(linear)
        return _transposed(linear)


def _transposed(linear: nn.Linear) -> nn.Linear:
    """The same layer; a matrix with more outputs than inputs lies in memory input by input.

    Measured for one row of 124M on two cores: (50257, 768) 5.8 ms instead of 9.7, (2304, 768) 0.33 instead of
    0.48, but (768, 3072) 0.57 instead of 0.44.
    """
    n_out, n_in = linear.weight.shape
    if n_out > n_in:
        weight = linear.weight.detach().t().contiguous().t()  # a copy: the token embedding keeps its own
        linear.weight = nn.Parameter(weight, requires_grad=False)
    return linear


class HalfLinear(nn.Module):
    """Weights rounded to bfloat16, 16 bits each, times float32 activations.

    PyTorch's own bfloat16 product is slow on processors without bfloat16 instructions (16 rows take five
    times as long as in float32). FBGEMM's packed halves hold the rounded weights: exactly where they are 0 or
    between 1.5e-5 and 65504 in size, else to 3e-8.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        rounded = linear.weight.detach().bfloat16().float()
        bias = None if linear.bias is None else linear.bias.detach()
        self.packed = torch.ops.quantized.linear_prepack_fp16(rounded, bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic_fp16(x, self.packed)


class Int8Linear(nn.Module):
    """Weights as 8-bit integers with one scale an output; activations are not quantized."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scales = (weight.abs().amax(1) / 127).clamp(min=1e-12).bfloat16()
        self.weight = (weight / scales[:, None].float()).round().clamp(-127, 127).to(torch.int8)
        self.scales = scales
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        # The kernel takes activations in bfloat16.
        y = torch._weight_int8pack_mm(x.flatten(0, -2).bfloat16(), self.weight, self.scales).float()
        return (y if self.bias is None else y + self.bias).unflatten(0, x.shape[:-1])


class DynLinear(nn.Module):
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scales = (weight.abs().amax(1) / 127).clamp(min=1e-12).double()
        q = torch.quantize_per_channel(
            weight, scales, torch.zeros(len(scales), dtype=torch.long), 0, torch.qint8
        )
        self.packed = torch.ops.quantized.linear_prepack(
            q, None if linear.bias is None else linear.bias.detach()
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic(x, self.packed, True)
