"""A model's matrices laid out for generation, where reading them is what takes the time.

One row at a time, a matrix product takes as long as its weights take to come from memory: fewer bytes, and an
order in which the processor reads them well, are all that helps.
"""

import warnings

import torch
from torch import Tensor, nn

from gpt_pretrain.errors import InputError
from gpt_pretrain.model import GPTModel

# FBGEMM's kernels are part of PyTorch on x86; elsewhere PyTorch's own bfloat16 product serves.
_HAS_FBGEMM = "fbgemm" in torch.backends.quantized.supported_engines


def for_generation(model: GPTModel, dtype: str) -> GPTModel:
    """Take `model` over for generation with float32, bfloat16 or int8 weights; it cannot be trained after.

    On a CPU activations stay in float32; the embeddings that are looked up, a row a token, stay as they are.
    Raises InputError for int8 where there is no kernel for it.
    """
    on_cpu = model.tok_emb.weight.device.type == "cpu"
    if dtype == "int8" and not (on_cpu and _HAS_FBGEMM):
        raise InputError("dtype=int8 is for x86 processors: set dtype=bfloat16, or device=cpu on one of them")
    if dtype == "bfloat16" and not (on_cpu and _HAS_FBGEMM):
        return model.to(torch.bfloat16)
    if on_cpu:
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, _laid_out(child, dtype))
    return model


@torch.inference_mode()
def _laid_out(linear: nn.Linear, dtype: str) -> nn.Module:
    if dtype == "bfloat16":
        return HalfLinear(linear)
    if dtype == "int8":
        return Int8Linear(linear)
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
    """Weights as 8-bit integers with one scale an output, in FBGEMM's integer products.

    The activations go in as two 7-bit digits, each a row of its own, since products of two full bytes
    overflow in AVX2's 16 bits. A row more costs next to nothing, and 14 bits leave an error of 1e-3 of the
    result where one digit leaves 8e-2 (measured on activations with outliers 25 and 40 times their spread).
    `torch._weight_int8pack_mm` keeps activations in bfloat16; it took up to three times as long.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scales = _quantized(linear.weight.detach())
        zeros = torch.zeros(len(scales), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated, with no successor that packs weights
            per_channel = torch._make_per_channel_quantized_tensor(weight, scales.double(), zeros, 0)
        self.packed = torch.ops.quantized.linear_prepack(per_channel, None)
        self.product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        step = float(rows.abs().max()) / 63 or 1.0
        scaled = rows / step
        high = scaled.round()  # -63 to 63
        digits = torch.cat([high, (scaled - high).mul_(126)])
        high, low = self.product(digits, 1.0, 64, self.packed).chunk(2)
        y = torch.add(high, low, alpha=1 / 126)
        y = y.mul_(step) if self.bias is None else torch.add(self.bias, y, alpha=step)
        return y.unflatten(0, x.shape[:-1])


def _quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Integers of -127 to 127 (out, in), and what one of them is worth in each row (out,)."""
    scales = (weight.abs().amax(1) / 127).clamp(min=1e-12).bfloat16().float()
    return (weight / scales[:, None]).round().clamp(-127, 127).to(torch.int8), scales
