"""python -m gpt_pretrain.evaluate weights=gpt2 data=the_verdict: loss, perplexity and bits per byte."""

from pathlib import Path

from gpt_pretrain.cli.program import command
from gpt_pretrain.config import EvaluateConfig


@command("evaluate", EvaluateConfig, example="python -m gpt_pretrain.evaluate weights=gpt2 data=the_verdict")
def evaluate(config: EvaluateConfig, run: Path) -> None:
    """Measure a model on a text: loss, perplexity and bits per byte of each split."""
    from gpt_pretrain.evaluation import evaluate

    evaluate(config)


if __name__ == "__main__":
    evaluate()
