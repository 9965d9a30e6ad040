"""`generate`: from a checkpoint and prompts to text on the terminal or in a file. No lightning."""

import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from gpt_pretrain.config import DecodingConfig, GenerateConfig
from gpt_pretrain.data.marks import own_mark
from gpt_pretrain.data.sources import cache_dir
from gpt_pretrain.decoding.continuation import Continuation
from gpt_pretrain.decoding.layout import find_kernel, for_generation
from gpt_pretrain.decoding.text import encode, generate_texts, some_tokens, stream_text, text_rules, written
from gpt_pretrain.generation.next_tokens import next_token_table, plot_temperatures, score_text
from gpt_pretrain.generation.prompt_loop import converse
from gpt_pretrain.generation.prompts import check_writable, json_line, read_prompts, recorded_prompt
from gpt_pretrain.generation.typing import typed_lines
from gpt_pretrain.model import GPTModel
from gpt_pretrain.runs.pretrained import load_pretrained, pick_device
from gpt_pretrain.terminal.text import show
from gpt_pretrain.tokenizer import Tokenizer


def generate(config: GenerateConfig) -> None:
    """What `config` asks for: continuations of the prompts, or a table, a picture or a score."""
    prompts = read_prompts(config.prompts_file) if config.prompts_file else []
    if config.output:
        check_writable("output", config.output, ".jsonl")
    if config.plot:
        check_writable("plot", config.plot, ".png")
    device = pick_device(config.device)
    model, tokenizer, source = _load(config, device, max(1, len(prompts)))
    if config.prompt is None:
        config = dataclasses.replace(config, prompt=recorded_prompt(source))
    assert config.prompt is not None
    prompts = prompts or [config.prompt]
    _check_texts(tokenizer, prompts, config)
    if any((mark := own_mark(tokenizer)) in prompt for prompt in prompts):
        _note(f"{mark} in a prompt is read as text, not as the end of one")
    try:
        if config.score is not None:
            show(score_text(model, tokenizer, config.score))
        elif config.next_tokens or config.plot:
            _inspect(model, tokenizer, config.prompt, config)
        elif config.interactive:
            converse(
                lambda prompt, decoding: stream_text(model, tokenizer, prompt, decoding),
                config.decoding,
                typed_lines(cache_dir() / "prompts"),
            )
        elif config.output:
            _write_rows(model, tokenizer, prompts, config, Path(config.output))
        else:
            _print_texts(model, tokenizer, prompts, config)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the text has seen enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _load(config: GenerateConfig, device: torch.device, n_prompts: int) -> tuple[GPTModel, Tokenizer, Path]:
    """The model, ready to generate, its tokenizer, and where they were read from."""
    model, tokenizer, source = load_pretrained(
        config.weights, config.model, config.tokenizer, config.checkpoint
    )
    _note(f"from {source}")
    kernel, said = find_kernel(model.to(device), config.dtype, config.kernel, _steps(config, n_prompts))
    if said:
        _note(said)
    return for_generation(model, config.dtype, kernel), tokenizer, source


def _steps(config: GenerateConfig, n_prompts: int) -> int:
    """About how many tokens are written one after the other."""
    if config.score is not None or config.next_tokens or config.plot:
        return 0
    texts = 20 if config.interactive else config.num_samples * -(-n_prompts // config.batch_size)
    return config.decoding.max_new_tokens * texts


def _check_texts(tokenizer: Tokenizer, prompts: list[str], config: GenerateConfig) -> None:
    """Raise InputError, before anything is written, for a text that the tokenizer cannot make tokens of."""
    text_rules(tokenizer, config.decoding)
    if config.score is not None or config.interactive:
        return
    for number, prompt in enumerate(prompts, 1):
        place = f"prompts_file={config.prompts_file}: line {number}" if config.prompts_file else "prompt"
        some_tokens(tokenizer, prompt, place)


def _inspect(model: GPTModel, tokenizer: Tokenizer, prompt: str, config: GenerateConfig) -> None:
    if config.next_tokens:
        show(next_token_table(model, tokenizer, prompt, config.next_tokens))
    if config.plot:
        plot_temperatures(model, tokenizer, prompt, config.next_tokens or 10, Path(config.plot))
        _note(f"wrote {config.plot}")


def _print_texts(model: GPTModel, tokenizer: Tokenizer, prompts: list[str], config: GenerateConfig) -> None:
    """Each prompt with its continuations. A single prompt's come as they are written."""
    many = len(prompts) * config.num_samples * config.decoding.num_return_sequences > 1
    if len(prompts) == 1 and config.decoding.num_return_sequences == 1:
        _note_window(model, tokenizer, prompts[0], config.decoding)
        for decoding in _samples(config):
            if many:
                _note(f"--- decoding.seed={decoding.seed}")
            show(prompts[0] if config.echo else "", end="", flush=True)
            for piece in stream_text(model, tokenizer, prompts[0], decoding):
                show(piece, end="", flush=True)
            show(flush=True)
        return
    for number, (prompt, row) in enumerate(_rows(model, tokenizer, prompts, config), 1):
        _note(f"--- {number}")
        show((prompt if config.echo else "") + written(tokenizer, row, config.decoding), flush=True)


def _write_rows(
    model: GPTModel, tokenizer: Tokenizer, prompts: list[str], config: GenerateConfig, file: Path
) -> None:
    """A JSON object a continuation, written batch by batch. `logprobs` are the model's own."""
    n_rows = 0
    with file.open("w", encoding="utf-8") as stream:
        for prompt, row in _rows(model, tokenizer, prompts, config):
            fields = {"prompt": prompt, **dataclasses.asdict(row)}
            fields = fields | {"text": written(tokenizer, row, config.decoding)}
            names = ("prompt", "prompt_token_ids", "text", "token_ids", "logprobs", "finish_reason")
            stream.write(json_line({name: fields[name] for name in names}))
            stream.flush()
            n_rows += 1
    _note(f"wrote {n_rows} rows to {file}")


def _rows(
    model: GPTModel, tokenizer: Tokenizer, prompts: list[str], config: GenerateConfig
) -> Iterator[tuple[str, Continuation]]:
    """Each prompt with each of its continuations, `batch_size` prompts at a time."""
    for start in range(0, len(prompts), config.batch_size):
        batch = prompts[start : start + config.batch_size]
        samples = [generate_texts(model, tokenizer, batch, decoding) for decoding in _samples(config)]
        for at, prompt in enumerate(batch):
            for sample in samples:
                for row in sample[at]:
                    yield prompt, row


def _samples(config: GenerateConfig) -> list[DecodingConfig]:
    """The settings of each sample: seeds go on where the last one's end."""
    decoding, n_each = config.decoding, config.decoding.num_return_sequences
    seeds = [decoding.seed + sample * n_each for sample in range(config.num_samples)]
    return [dataclasses.replace(decoding, seed=seed) for seed in seeds]


def _note_window(model: GPTModel, tokenizer: Tokenizer, prompt: str, decoding: DecodingConfig) -> None:
    n_prompt, context_length = len(encode(tokenizer, prompt)), model.config.context_length
    if n_prompt > context_length:
        _note(f"the prompt has {n_prompt} tokens, the context {context_length}: only the last ones are read")
    if n_prompt + decoding.max_new_tokens > context_length + 1 and decoding.slide == 1:
        _note(
            f"beyond {context_length} tokens each new one re-reads the whole context; "
            f"decoding.slide={max(2, context_length // 4)} is faster"
        )


def _note(text: str) -> None:
    """Beside the text, not in it."""
    show(text, file=sys.stderr)
