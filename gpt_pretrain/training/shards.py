"""A model in shards (FSDP2): how it is spread, and how a tensor of it is had whole or in part."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from gpt_pretrain.model import GPTModel


def shard(model: GPTModel, mesh: DeviceMesh, *, in_bfloat16: bool) -> None:
    """Spread `model` over the processes of `mesh`, block by block; the tied head lies with the embedding.

    With `in_bfloat16` weights travel and multiply in bfloat16; gradients are summed in float32.
    """
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    own = {"mesh": mesh, "mp_policy": policy} if in_bfloat16 else {"mesh": mesh}
    for block in model.blocks:
        fully_shard(block, **own)
    fully_shard(model, **own)


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that may be sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def as_shard(value: Any, like: Tensor) -> Any:
    """`value`, whole on every process, spread as `like` is, where it has the same shape."""
    if not isinstance(value, Tensor) or not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
