"""Where Hydra looks for plugins: `plugin.py` puts the folder above on the path."""

from gpt_pretrain.sweep.sweeper import Sweeper

__all__ = ["Sweeper"]
