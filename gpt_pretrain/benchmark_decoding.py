"""python -m gpt_pretrain.benchmark_decoding: the benchmark as it was called first."""

from gpt_pretrain.benchmark.decoding import benchmark_decoding

if __name__ == "__main__":
    benchmark_decoding()
