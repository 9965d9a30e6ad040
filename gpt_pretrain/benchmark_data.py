"""python -m gpt_pretrain.benchmark_data: the benchmark as it was called first."""

from gpt_pretrain.benchmark.data import benchmark_data

if __name__ == "__main__":
    benchmark_data()
