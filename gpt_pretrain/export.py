"""python -m gpt_pretrain.export checkpoint=<run> format=book out=<folder>: weights for other programs."""

from pathlib import Path

from gpt_pretrain.cli.program import command
from gpt_pretrain.config import ExportConfig
from gpt_pretrain.terminal.text import show


@command(
    "export",
    ExportConfig,
    example="python -m gpt_pretrain.export checkpoint=outputs/... format=book out=exported",
)
def export(config: ExportConfig, run: Path) -> None:
    """Write a model in another program's format: huggingface, book or openai (TensorFlow)."""
    from gpt_pretrain.runs.pretrained import load_pretrained
    from gpt_pretrain.weights.write import write_weights

    model, tokenizer, source = load_pretrained(config.weights, config.model, config.checkpoint)
    out = Path(config.out or "")
    shard_bytes = None if config.max_shard_mb is None else config.max_shard_mb * 10**6
    write_weights(out, config.format, model.state_dict(), model.config, tokenizer, shard_bytes)
    show(f"from {source}: {model.n_params():,} parameters")
    for file in sorted(out.iterdir()):
        show(f"{file.stat().st_size:15,} {file}")


if __name__ == "__main__":
    export()
