"""Pretrain GPT-2-style language models with PyTorch Lightning, driven by Hydra settings."""

import sys

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # one of our programs begins, and before anything else of it the package
    from gpt_pretrain.launch.signals import listen

    listen()
