"""python -m gpt_pretrain.benchmark: training. benchmark.decoding and benchmark.data are programs too."""

from gpt_pretrain.benchmark.training import benchmark

if __name__ == "__main__":  # the engines' processes import it, too
    benchmark()
