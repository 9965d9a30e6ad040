"""python -m gpt_pretrain.evaluate weights=gpt2 data=the_verdict: loss, perplexity and bits per byte."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt_pretrain.cli.program import command
from gpt_pretrain.config import DataConfig, EvaluateConfig
from gpt_pretrain.config.words import typed
from gpt_pretrain.terminal.silence import Silence
from gpt_pretrain.terminal.text import show

if TYPE_CHECKING:  # torch takes seconds: whoever asks for help need not wait for it
    import numpy as np

    from gpt_pretrain.data.tokens import Tokens
    from gpt_pretrain.generation.questions import Question
    from gpt_pretrain.model import GPTModel
    from gpt_pretrain.tokenizer import Tokenizer


DECIDE_SPLIT = (  # settings of data, without the machine's own
    *("source", "path", "pattern", "text_field", "subset", "section", "sources"),
    *("split", "val_fraction", "val_path"),
)


@dataclass(frozen=True, slots=True)
class Score:
    loss: float  # nats per token, over every token of every whole window
    n_tokens: int
    n_bytes: int  # of UTF-8 text that these tokens stand for; an end of text is none

    @property
    def bits_per_byte(self) -> float:
        from gpt_pretrain.loss import bits_per_byte

        return bits_per_byte(self.loss, self.n_bytes / self.n_tokens)


@command(
    "evaluate",
    EvaluateConfig,
    examples={
        "python -m gpt_pretrain.evaluate": "the newest run's best model on the default run's text",
        "python -m gpt_pretrain.evaluate weights=gpt2 data=the_verdict": "OpenAI's GPT-2 on the story",
        "python -m gpt_pretrain.evaluate choices=hellaswag_val.jsonl": "multiple choice, from a local file",
        "python -m gpt_pretrain.evaluate cloze=lambada_test.jsonl": "the last word of each text",
    },
)
def evaluate(config: EvaluateConfig, run: Path) -> None:
    """Measure a model on a text: loss, perplexity and bits per byte of each split; or on questions."""
    from gpt_pretrain.data.corpus import check_windows, load_corpus
    from gpt_pretrain.loss import perplexity
    from gpt_pretrain.runs.pretrained import load_pretrained, pick_device

    questions = _questions(config)  # before the weights: a mistake in the file shows at once
    model, tokenizer, source = load_pretrained(
        config.weights, config.model, config.tokenizer, config.checkpoint
    )
    context_length = model.config.context_length
    if questions:
        model.to(pick_device(config.device))
        show(f"{source}: {model.n_params():,} parameters", file=sys.stderr)
        _ask(model, tokenizer, questions, config)
        return
    corpus = load_corpus(config.data, tokenizer)
    splits = {"train": corpus.train, "val": corpus.val}
    if config.split != "both":
        splits = {config.split: splits[config.split]}
    check_windows(corpus, config.data, context_length, tuple(splits))
    model.to(pick_device(config.device))
    text = ", ".join(part.name for part in corpus.parts)
    show(
        f"{source}: {model.n_params():,} parameters, on {text}, windows of {context_length} tokens",
        file=sys.stderr,
    )
    for remark in [*corpus.remarks(), *_not_its_own_split(source, config.data)]:
        show(remark, file=sys.stderr)
    show(f"{'':6}{'loss':>10}{'perplexity':>13}{'bits/byte':>12}{'tokens':>13}")
    for split, tokens in splits.items():
        score = measure(model, tokenizer, tokens, config.data.batch_size)
        show(
            f"{split:6}{score.loss:10.5f}{perplexity(score.loss):13.7g}"
            f"{score.bits_per_byte:12.5f}{score.n_tokens:13,}",
            flush=True,
        )


def _not_its_own_split(checkpoint: Path, data: DataConfig) -> list[str]:
    """What is to be said of a run's model that is measured on another text, or split, than it trained on."""
    from gpt_pretrain.errors import ArtifactError
    from gpt_pretrain.runs.record import SETTINGS, read_record

    if not (checkpoint / SETTINGS).is_file():
        return []
    try:
        then = read_record(checkpoint).data
    except ArtifactError:  # weights are good without
        return []
    pairs = {key: (getattr(data, key), getattr(then, key)) for key in DECIDE_SPLIT}
    told = [_setting(key, value) for key, (here, value) in pairs.items() if here != value]
    if not told:
        return []
    words = " ".join(told)
    return [f"train and val are not the run's own, which may have trained on this val: for its own {words}"]


def _setting(key: str, value: Any) -> str:
    name = "data" if key == "source" else f"data.{key}"  # a group's members are named by their source
    return f"{name}=null" if value is None else typed(name, str(value))


def _questions(config: EvaluateConfig) -> "list[Question]":
    from gpt_pretrain.generation.questions import read_choices, read_cloze

    if config.choices:
        return read_choices(config.choices)[: config.max_questions]
    return read_cloze(config.cloze)[: config.max_questions] if config.cloze else []


def _ask(
    model: "GPTModel", tokenizer: "Tokenizer", questions: "list[Question]", config: EvaluateConfig
) -> None:
    from rich.progress import track

    from gpt_pretrain.generation.questions import answer_choices, answer_cloze, score

    asked = track(questions, "evaluating", transient=True, disable=not sys.stderr.isatty())
    scored = [(question, score(model, tokenizer, question)) for question in asked]
    result = answer_choices(scored) if config.choices else answer_cloze(scored)
    shares = {"accuracy": result.accuracy, "accuracy by length": result.by_length}
    for name, share in shares.items():
        if share is not None:
            show(f"{name:20}{share:8.4f}  +- {result.error(share):.4f}")
    if result.perplexity is not None:
        show(f"{'perplexity':20}{result.perplexity:8.7g}")
    show(f"{'questions':20}{result.n:8,}")


def measure(
    model: "GPTModel", tokenizer: "Tokenizer", tokens: "Tokens | np.ndarray", batch_size: int
) -> Score:
    """The mean loss over whole windows, end to end, each token counting once."""
    import torch
    from rich.progress import track

    from gpt_pretrain.data.windows import Share, count_windows, evaluation_batch
    from gpt_pretrain.loss import IGNORED, summed_token_loss
    from gpt_pretrain.tokenizer import byte_lengths

    context_length = model.config.context_length
    n_windows = count_windows(len(tokens), context_length, context_length)
    device = model.tok_emb.weight.device
    lengths, share = byte_lengths(tokenizer), Share(batch_size=batch_size)
    loss, n_tokens, n_bytes = 0.0, 0, 0
    silence = Silence()
    batches = range(-(-n_windows // batch_size))
    for batch in track(batches, "evaluating", transient=True, disable=not sys.stderr.isatty()):
        silence.end(lambda: f"evaluating: {batch:,} of {len(batches):,} batches")  # noqa: B023
        inputs, targets = evaluation_batch(tokens, batch, share, context_length=context_length)
        counted = targets[:, 0] != IGNORED  # windows beyond the last one
        inputs, targets = inputs[counted], targets[counted]
        with torch.inference_mode():
            logits = model(torch.from_numpy(inputs).to(device))
            total, count = summed_token_loss(logits, torch.from_numpy(targets).to(device))
        loss, n_tokens = loss + float(total), n_tokens + int(count)
        n_bytes += int(lengths[targets].sum())
    return Score(loss=loss / n_tokens, n_tokens=n_tokens, n_bytes=n_bytes)


if __name__ == "__main__":
    evaluate()
