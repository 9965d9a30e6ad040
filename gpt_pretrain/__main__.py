"""`python -m gpt_pretrain` is `python train.py`: how a sweep starts programs from any folder."""

from gpt_pretrain.cli.commands import train_command

if __name__ == "__main__":
    train_command()
