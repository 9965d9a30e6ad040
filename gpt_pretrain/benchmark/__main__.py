"""python -m gpt_pretrain.benchmark: training. benchmark.decoding and benchmark.data are programs too."""

from gpt_pretrain.benchmark.training import benchmark

benchmark()
