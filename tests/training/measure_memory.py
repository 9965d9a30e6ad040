"""Train three steps of one shape in a process of its own; print its estimate and its peak, in bytes."""

import sys

import torch

from gpt_pretrain.config import AdamWConfig, ModelConfig
from gpt_pretrain.loss import head_loss_in_place
from gpt_pretrain.model import GPTModel
from gpt_pretrain.training.estimate import estimate_memory
from gpt_pretrain.training.optim import build_optimizer


def peak() -> int:
    with open("/proc/self/status", encoding="ascii") as stream:
        return next(int(line.split()[1]) * 1024 for line in stream if line.startswith("VmHWM"))


def main(emb_dim: int, n_layers: int, vocab_size: int, batch_size: int, recompute: bool) -> None:
    torch.set_num_threads(1)
    warm = torch.nn.Linear(64, 64)  # libraries and their buffers are there before the first reading
    warm(torch.ones(8, 64)).sum().backward()
    torch.optim.AdamW(warm.parameters(), fused=True).step()
    shape = ModelConfig(
        vocab_size=vocab_size, context_length=256, emb_dim=emb_dim, n_heads=4, n_layers=n_layers
    )
    before = peak()
    model = GPTModel(shape)
    model.head_loss = head_loss_in_place
    for block in model.blocks:
        block.recompute = recompute
    optimizer = build_optimizer(model, AdamWConfig())
    tokens = torch.randint(0, vocab_size, (batch_size, shape.context_length))
    for _ in range(3):
        model(tokens, targets=tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
    estimate = estimate_memory(
        shape,
        AdamWConfig(),
        batch_size=batch_size,
        precision="32-true",
        recompute=recompute,
        on_cpu=True,
        loss_in_place=True,
    )
    print(estimate.total, peak() - before)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:5]), recompute=sys.argv[5] == "1")
