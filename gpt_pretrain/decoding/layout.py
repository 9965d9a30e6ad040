"""A model laid out for generation, where reading the weights is what takes the time.

One row at a time, a matrix product takes as long as its weights take to come from memory: fewer bytes, and an
order in which the processor reads them well, are what helps. What is left is the calls between the products,
which a C compiler leaves out.
"""

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from gpt_pretrain.decoding.compiled import COMPILED, CompiledBlocks, unusable
from gpt_pretrain.decoding.products import HAS_FBGEMM, PRODUCTS, GenerationBlock
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.model import Block, GPTModel

WORTH = 8_000_000_000  # parameters times steps; fewer are done before the compiler is


def find_kernel(model: GPTModel, dtype: str, wanted: str, steps: float) -> tuple[str, str | None]:
    """torch or c, whatever `auto` means here for so many steps of one token, and what there is to say of it.

    Raises InputError for c where it cannot be.
    """
    if wanted == "torch":
        return "torch", None
    weight = model.tok_emb.weight
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        if wanted == "c":
            raise InputError("kernel=c is for models in float32 on a CPU: set kernel=auto, or device=cpu")
        return "torch", None
    needed = wanted == "c" or (dtype == "int8" and not HAS_FBGEMM)
    if model.n_params() * steps < WORTH and not needed:
        return "torch", None
    reason = unusable(model.config)
    if reason and wanted == "c":
        raise InputError(f"kernel=c: {reason}")
    if reason:
        return "torch", f"each token goes through the blocks by torch's functions: {reason}"
    return "c", "each token goes through the blocks in compiled C (kernel=torch: by torch's functions)"


@torch.inference_mode()
def for_generation(model: GPTModel, dtype: str, kernel: str = "torch") -> GPTModel:
    """Take `model` over for generation with float32, bfloat16 or int8 weights; it cannot be trained after.

    `kernel` is what `find_kernel` found. On a CPU activations stay in float32; the embeddings that are looked
    up, a row a token, stay as they are. Raises InputError for int8 where there is no kernel for it,
    ArtifactError for narrower weights that are no numbers: some kernels would make numbers of them.
    """
    on_cpu = model.tok_emb.weight.device.type == "cpu"
    widens = on_cpu and (HAS_FBGEMM or kernel == "c")  # narrow weights, for activations in float32
    if kernel == "c":
        model.float()  # whatever it is in: what step.c reads and writes is float32
    if dtype == "int8" and not widens:
        raise InputError(
            "dtype=int8 needs an x86 processor, or another and a C compiler: "
            "set device=cpu there, else dtype=bfloat16"
        )
    model.requires_grad_(False)  # so that it can be called outside inference mode too
    if dtype == "bfloat16" and not widens:
        return model.to(torch.bfloat16)
    if on_cpu:
        if dtype != "float32":
            _check_numbers(model)
        product = (COMPILED if kernel == "c" else PRODUCTS)[dtype]
        blocks = [GenerationBlock(block, product) for block in cast(Iterable[Block], model.blocks)]
        model.blocks = nn.ModuleList([CompiledBlocks(blocks)] if kernel == "c" else blocks)
        model.out_head = product(model.out_head)  # type: ignore[assignment]
    return model


def _check_numbers(model: GPTModel) -> None:
    for parameter in model.parameters():
        # The sum takes a tenth of the time, and is no number where one of them is none.
        if not (parameter.sum().isfinite() or parameter.isfinite().all()):
            raise ArtifactError(
                "the model's weights are not numbers: its training diverged, or its file is damaged"
            )
