"""A model's step of one token a row by `step.c`, which this machine's C compiler makes into its own code.

The library lasts as long as the process: nothing is kept on disk.
"""

import ctypes
import os
import subprocess
import tempfile
from ctypes import POINTER, Structure, c_float, c_int, c_int32, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path
from shutil import which
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.decoding.key_values import LayerView
from gpt_pretrain.decoding.products import GenerationBlock, Product, to_levels

SOURCE = Path(__file__).with_name("step.c")
COMPILERS = ("cc", "gcc", "clang")
OPTIONS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
BLOCK, WIDTH = 32, 8  # as there
FEW_ROWS = 16  # up to which it takes less time than to widen the weights for torch's product


def unusable(config: ModelConfig) -> str | None:
    """Why `step.c` cannot serve a model of this shape on this machine, if it cannot."""
    if config.emb_dim % BLOCK or config.emb_dim // config.n_heads % WIDTH:
        return f"emb_dim must be a multiple of {BLOCK}, and of {WIDTH} for each head"
    made = _made()
    return made if isinstance(made, str) else None


@lru_cache(maxsize=1)
def _made() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    compiler = next(filter(None, map(which, COMPILERS)), None)
    if compiler is None:
        return f"there is no C compiler ({', '.join(COMPILERS)})"
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            file = str(Path(folder) / "step.so")
            subprocess.run(
                [compiler, *OPTIONS, "-o", file, str(SOURCE), "-lm"],
                check=True,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=60,
                env={**os.environ, "LC_ALL": "C"},
            )
            library = ctypes.CDLL(file)
        step, product = library.step, library.product
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if "error" in line or "cannot" in line]
        return f"{compiler} cannot compile it: {said[0][:200] if said else f'exit code {error.returncode}'}"
    except (OSError, AttributeError, subprocess.TimeoutExpired) as error:
        return f"what {compiler} makes cannot be used: {error}"
    pointers = [c_void_p] * 3
    step.argtypes = [POINTER(_Model), c_void_p, c_int, *pointers, c_int64, c_void_p, c_int]
    product.argtypes = [POINTER(_Product), c_void_p, c_void_p, c_int, c_int]
    step.restype = product.restype = None
    return library


def _library() -> ctypes.CDLL:
    return cast(ctypes.CDLL, _made())  # `unusable` was asked


class _Product(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("weight", "scale", "bias")),
        *((name, c_int32) for name in ("dtype", "n_in", "n_out")),
    ]


class _Norm(Structure):
    _fields_ = [("weight", c_void_p), ("bias", c_void_p), ("eps", c_float)]


class _Block(Structure):
    _fields_ = [
        *((name, _Norm) for name in ("norm1", "norm2")),
        *((name, _Product) for name in ("qkv", "out_proj", "expand", "contract")),
    ]


class _Model(Structure):
    _fields_ = [
        ("blocks", POINTER(_Block)),
        *((name, c_int32) for name in ("n_layers", "n_heads", "emb_dim")),
    ]


def _flat(numbers: Tensor) -> Tensor:
    """As step.c reads them: float32, one after the other."""
    return numbers.detach().float().contiguous()


class CompiledProduct(Product):
    """float32 weights, the model's own; the activations of all products here are float32."""

    dtype = 0  # its number in step.c
    scale: Tensor | None = None  # (out,)

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.bias = None if self.bias is None else _flat(self.bias)

    def lay_out(self, weight: Tensor) -> None:
        self.weight = _flat(weight)

    def wide(self) -> Tensor:
        """The weights (out, in) in float32."""
        return self.weight

    def rows(self, x: Tensor) -> Tensor:
        if len(x) > FEW_ROWS:
            return F.linear(x, self.wide(), self.bias)
        x, y = x.contiguous(), x.new_empty(len(x), self.n_out)
        _library().product(self.as_struct(), x.data_ptr(), y.data_ptr(), len(x), torch.get_num_threads())
        return y

    def as_struct(self) -> _Product:
        """Pointers into the tensors, which have to outlive it."""
        scale, bias = (None if values is None else values.data_ptr() for values in (self.scale, self.bias))
        return _Product(self.weight.data_ptr(), scale, bias, self.dtype, self.n_in, self.n_out)


class CompiledHalf(CompiledProduct):
    """Weights rounded to bfloat16."""

    dtype = 1

    def lay_out(self, weight: Tensor) -> None:
        self.weight = weight.bfloat16().contiguous()

    def wide(self) -> Tensor:
        return self.weight.float()


class CompiledBytes(CompiledProduct):
    """Weights as bytes, with a scale for each output."""

    dtype = 2

    def lay_out(self, weight: Tensor) -> None:
        levels, self.scale = to_levels(weight)
        # Of 32 numbers the one at 8k + j is byte k of word j: (out, in / 32, 4, 8) -> (out, in / 32, 8, 4)
        self.weight = levels.view(self.n_out, -1, BLOCK // WIDTH, WIDTH).mT.reshape(weight.shape)

    def wide(self) -> Tensor:
        assert self.scale is not None
        levels = self.weight.view(self.n_out, -1, WIDTH, BLOCK // WIDTH).mT.reshape(self.weight.shape)
        return levels * self.scale[:, None]


COMPILED: dict[str, type[Product]] = {
    "float32": CompiledProduct,
    "bfloat16": CompiledHalf,
    "int8": CompiledBytes,
}


class CompiledBlocks(nn.Module):
    """All blocks of a model as one: few rows of one token each go through `step.c`, others block by block."""

    def __init__(self, blocks: list[GenerationBlock]) -> None:
        super().__init__()
        self.blocks = blocks
        self.norms = [
            {name: (_flat(norm.weight), _flat(norm.bias), norm.eps) for name, norm in block.norms.items()}
            for block in blocks
        ]
        self.model: _Model | None = None  # pointers into the tensors of all these

    def forward(self, x: Tensor, layer: LayerView | None = None) -> Tensor:
        n_rows, n_tokens, width = x.shape  # (B, T, C)
        if layer is None or n_tokens > 1 or n_rows > FEW_ROWS:
            for index, block in enumerate(self.blocks):
                x = block(x, None if layer is None else layer.cache.layer(index))
            return x
        cache, threads = layer.cache, torch.get_num_threads()
        capacity = cache.keys.shape[3]
        assert len(cache.lengths) == n_rows
        assert max(cache.lengths) < capacity  # beyond it lies what is another's
        self.model = self.model or self._as_struct(width)
        x, positions = x.contiguous().clone(), torch.tensor(cache.lengths)
        room = x.new_empty(8 * n_rows * width + threads * (n_rows * width + capacity))
        at, where, keys, values, free = (t.data_ptr() for t in (x, positions, cache.keys, cache.values, room))
        _library().step(self.model, at, n_rows, where, keys, values, capacity, free, threads)
        return x

    def _as_struct(self, width: int) -> _Model:
        structs = (_Block * len(self.blocks))()
        for struct, block, norms in zip(structs, self.blocks, self.norms, strict=True):
            for name, (weight, bias, eps) in norms.items():
                setattr(struct, name, _Norm(weight.data_ptr(), bias.data_ptr(), eps))
            for name, product in block.products.items():
                setattr(struct, name, cast(CompiledProduct, product).as_struct())
        return _Model(structs, len(structs), self.blocks[0].n_heads, width)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"model": None}  # a copy's tensors lie elsewhere
