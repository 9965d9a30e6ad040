"""Pretrain a GPT-2-style language model: python train.py model=tiny optimizer.lr=1e-4 (or --help)."""

if __name__ == "__main__":
    from gpt_pretrain.launch.signals import listen

    listen()  # first of all: what follows takes a while to import

    from gpt_pretrain.cli.commands import train_command

    train_command()
