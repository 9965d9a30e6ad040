"""Pretrain a GPT-2-style language model: python train.py model=tiny optimizer.lr=1e-4 (or --help)."""

from gpt_pretrain.cli.commands import train_command

if __name__ == "__main__":
    train_command()
