"""A model card: the README.md that a folder of weights is published with."""

from pathlib import Path
from typing import Any

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.foreign import read_yaml, to_yaml
from gpt_pretrain.runs.folders import read_state
from gpt_pretrain.runs.record import OF_THIS_MACHINE, SETTINGS
from gpt_pretrain.tokenizer import Tokenizer

_CARD = """\
---
license: other  # fill in
library_name: transformers
pipeline_tag: text-generation
tags:
- gpt2
---

# A GPT-2-style language model

A language model with GPT-2's architecture and {n_params:,} parameters: {n_layers} layers, {n_heads} heads,
width {emb_dim}, a context of {context_length} tokens, a vocabulary of {vocab_size:,} ({tokenizer}).

```python
from transformers import pipeline

print(pipeline("text-generation", "<this folder or its name on the hub>")("The")[0]["generated_text"])
```

## Intended use and limits

Fill in: what the text was, who may use the model, and what for. It continues text; it has not been taught to
follow instructions, and what it says may be false.
"""

_TRAINING = """
## Training

Trained with gpt_pretrain on {text}.

| | |
|---|---|
{measured}

All settings:

{settings}
"""


def model_card(folder: Path, config: ModelConfig, tokenizer: Tokenizer, n_params: int) -> str:
    """A card for the model in `folder`: where that is a checkpoint, with its run's losses and settings."""
    sizes = ("n_layers", "n_heads", "emb_dim", "context_length", "vocab_size")
    shape = {key: getattr(config, key) for key in sizes}
    card = _CARD.format(n_params=n_params, tokenizer=tokenizer.name, **shape)
    if not (folder / SETTINGS).is_file():
        return card
    settings = read_yaml(folder / SETTINGS)
    for section, names in OF_THIS_MACHINE.items():
        if isinstance(settings.get(section), dict):
            settings[section] = {key: value for key, value in settings[section].items() if key not in names}
    text = _of(settings, "data", "path") or _of(settings, "data", "source")
    return card + _TRAINING.format(
        text="`" + " ".join(str(text).replace("`", "'").split()) + "`",
        measured=_measured(folder),
        # Indented: no line of them can end it, as one could end a fence.
        settings="\n".join(f"    {line}" for line in to_yaml(settings).splitlines()),
    )


def _measured(checkpoint: Path) -> str:
    """Rows of a table: what the run had measured when it saved this."""
    state = read_state(checkpoint)
    newest = _of(state, "callbacks", "Metrics", "newest")
    values = {
        "optimizer steps": state.get("global_step"),
        "tokens seen": _of(newest, "tokens_seen"),
        "training loss": _of(newest, "train/loss"),
        "validation loss": _of(newest, "val/loss"),
        "validation perplexity": _of(newest, "val/perplexity"),
        "validation bits per byte": _of(newest, "val/bits_per_byte"),
    }
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return "\n".join(
        f"| {name} | {value:,.4f} |" if isinstance(value, float) else f"| {name} | {value:,} |"
        for name, value in numbers.items()
    )


def _of(tree: Any, *keys: str) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
