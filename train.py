"""Pretrain a GPT-2-style language model: python train.py model=tiny optimizer.lr=1e-4 (python train.py
--help).
"""

from gpt_pretrain.cli.commands import train

if __name__ == "__main__":
    train()
