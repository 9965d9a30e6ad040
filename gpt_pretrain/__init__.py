"""Pretrain GPT-2-style language models with PyTorch Lightning, driven by Hydra settings."""

__version__ = "0.1.0"
