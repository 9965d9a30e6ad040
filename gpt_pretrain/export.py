"""python -m gpt_pretrain.export checkpoint=<run> format=book out=<folder>: weights for other programs."""

from pathlib import Path

from gpt_pretrain.cli.program import command
from gpt_pretrain.config import ExportConfig
from gpt_pretrain.terminal.text import show


@command(
    "export",
    ExportConfig,
    examples={
        "python -m gpt_pretrain.export out=exported": "the newest run's best model, for transformers",
        "python -m gpt_pretrain.export checkpoint=ckpt.pt tokenizer=gpt2 out=exported": "any weights",
    },
)
def export(config: ExportConfig, run: Path) -> None:
    """Write a model in another program's format: huggingface, book or openai (TensorFlow)."""
    from gpt_pretrain.runs.model_card import model_card
    from gpt_pretrain.runs.pretrained import load_pretrained
    from gpt_pretrain.weights.write import write_weights

    model, tokenizer, source = load_pretrained(
        config.weights, config.model, config.tokenizer, config.checkpoint
    )
    out = Path(config.out or "")
    shard_bytes = None if config.max_shard_mb is None else config.max_shard_mb * 10**6
    card = model_card(source, model.config, tokenizer, model.n_params())
    write_weights(out, config.format, model.state_dict(), model.config, tokenizer, shard_bytes, card=card)
    show(f"from {source}: {model.n_params():,} parameters")
    for file in sorted(out.iterdir()):
        show(f"{file.stat().st_size:15,} {file}")
    if config.format == "huggingface":
        show(
            "its README.md is a model card: fill in the licence, then: hf upload <your name>/<model> "
            + str(out)
        )


if __name__ == "__main__":
    export()
