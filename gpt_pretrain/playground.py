"""python -m gpt_pretrain.playground: a page in the browser where a model, or two, continue what one types."""

import dataclasses
import html
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt_pretrain.cli.program import command
from gpt_pretrain.config import DecodingConfig, ModelSettings, PlaygroundConfig, WeightsConfig
from gpt_pretrain.config.fields import check_ranges
from gpt_pretrain.errors import InputError, UserFacingError
from gpt_pretrain.generation.prompts import recorded_prompt
from gpt_pretrain.terminal.text import show

if TYPE_CHECKING:  # torch takes seconds: whoever asks for help need not wait for it
    from gpt_pretrain.model import GPTModel
    from gpt_pretrain.tokenizer import Tokenizer

N_BARS = 12
WHOLE = {"top_k", "max_new_tokens", "seed"}  # settings that are whole numbers
Loaded = tuple["GPTModel", "Tokenizer", str]  # and what it is called on the page


@command(
    "playground",
    PlaygroundConfig,
    examples={
        "python -m gpt_pretrain.playground": "the newest run's best model",
        "python -m gpt_pretrain.playground checkpoint=a compare=b": "two models side by side",
    },
)
def playground(config: PlaygroundConfig, run: Path) -> None:
    """Try a model in the browser: a prompt, sliders, text as it streams, what comes next by probability."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # the page and the program ask nobody outside
    try:
        import gradio
    except ImportError as error:
        raise InputError("the playground needs gradio: pip install '.[playground]'") from error
    page = build_page(gradio, load(config), config.decoding)
    here = {"server_name": "127.0.0.1", "server_port": config.port, "share": False}
    try:
        page.launch(**here, quiet=True, prevent_thread_lock=True, **looks(gradio))
    except OSError as error:
        raise InputError(f"port={config.port} cannot be used ({error}): give another") from error
    show(f"http://127.0.0.1:{config.port} (Ctrl-C ends it)", flush=True)
    threading.Event().wait()


def load(config: PlaygroundConfig) -> list[Loaded]:
    """The model, and the one to compare it with."""
    from gpt_pretrain.runs.pretrained import load_pretrained, pick_device

    device = pick_device(config.device)
    given = load_pretrained(config.weights, config.model, config.tokenizer, config.checkpoint)
    both = [given] if config.compare is None else [given, _compared(config, config.compare)]
    return [(model.to(device), tokenizer, str(source)) for model, tokenizer, source in both]


def _compared(config: PlaygroundConfig, path: str) -> tuple["GPTModel", "Tokenizer", Path]:
    """The model at `path`, of the shape that its weights have, with the tokenizer that lies beside them.

    What is typed is the first model's. Here a tokenizer counts only where none lies there, and a number of
    heads without a size only where the weights do not say it.
    """
    from gpt_pretrain.runs.folders import find_checkpoint
    from gpt_pretrain.runs.pretrained import brought_tokenizer, fitting_model, open_pretrained, tokenizer_of
    from gpt_pretrain.weights.read import build_model

    found, weights = find_checkpoint(Path(path), "compare"), WeightsConfig(name="checkpoint")
    heads = config.model.n_heads if config.model.emb_dim is None else None
    opened = open_pretrained(weights, ModelSettings(n_heads=heads), str(found))
    assert opened is not None
    tokenizer = brought_tokenizer(opened, weights) or tokenizer_of(opened, weights, config.tokenizer)
    shape = fitting_model(opened, ModelSettings(), tokenizer.vocab_size)
    return build_model(opened, shape).eval(), tokenizer, found


def settings_of(first: DecodingConfig, values: dict[str, Any]) -> DecodingConfig:
    """The settings of the sliders above those of the command line; a filter at its end is off, and an emptied
    field, which is None, is as on the command line.

    Raises InputError where they are out of range or exclude each other.
    """
    off = {"top_k": 0, "top_p": 1, "min_p": 0}
    given: dict[str, Any] = {
        name: None if name in off and value == off[name] else (int if name in WHOLE else float)(value)
        for name, value in values.items()
        if value is not None
    }
    settings = dataclasses.replace(first, **given)
    check_ranges(settings, "decoding.")
    settings.check()
    return settings


def bars(loaded: Loaded, prompt: str, settings: DecodingConfig, new: str = "") -> str:
    """The likeliest tokens after `prompt` and the `new` text, as bars: drawn with penalties, filters and
    temperature as generation has them; and as they are without.
    """
    import torch

    from gpt_pretrain.decoding.choose import distribution, exhausted
    from gpt_pretrain.decoding.continuation import apply
    from gpt_pretrain.decoding.scoring import next_token_logits
    from gpt_pretrain.decoding.text import encode, text_rules
    from gpt_pretrain.tokenizer import decode

    model, tokenizer, _ = loaded
    given = encode(tokenizer, prompt) or [tokenizer.end_of_text_id]
    token_ids = [*given, *encode(tokenizer, new)]
    logits = next_token_logits(model, token_ids)
    plain, rules = logits.softmax(-1), text_rules(tokenizer, settings)
    # (V,) -> (1, V)
    shaped = apply(logits[None], [token_ids], [len(given)], settings, tokenizer.end_of_text_id, rules)
    if all(exhausted(shaped)):
        return "<p>every token is ruled out</p>"
    if settings.temperature == 0:  # the most likely one, always
        chosen = torch.nn.functional.one_hot(shaped[0].argmax(), len(logits)).float()
    else:
        chosen = distribution(shaped, settings)[0].float()
    lines = []
    for id_ in chosen.topk(min(N_BARS, len(chosen))).indices.tolist():
        token = html.escape(repr(decode(tokenizer, [id_])))
        lines.append(
            f"<tr><td><code>{token}</code></td>"
            f'<td style="width:60%"><div style="background:#27d;height:0.8em;width:{chosen[id_]:.2%}"></div>'
            f'<div style="background:#bbb;height:0.3em;width:{plain[id_]:.2%}"></div></td>'
            f"<td>{chosen[id_]:.4f}</td></tr>"
        )
    head = "<tr><th>next token</th><th>drawn with (grey: without settings)</th><th></th></tr>"
    return f'<table style="width:100%">{head}{"".join(lines)}</table>'


def written(loaded: Loaded, prompt: str, settings: DecodingConfig) -> Iterator[tuple[str, str]]:
    """The text as it grows, with the bars of what comes next: first of the prompt, last of the whole."""
    from gpt_pretrain.decoding.text import stream_text

    model, tokenizer, _ = loaded
    new = ""
    yield prompt, bars(loaded, prompt, settings)
    for piece in stream_text(model, tokenizer, prompt, settings):
        new += piece
        yield prompt + new, bars(loaded, prompt, settings, new)


def build_page(gradio: Any, models: list[Loaded], first: DecodingConfig) -> Any:
    """The page: prompt and sliders, then a column a model."""
    with gradio.Blocks(title="gpt_pretrain", analytics_enabled=False) as page:
        begun = recorded_prompt(Path(models[0][2]))
        prompt = gradio.Textbox(begun, label="prompt", lines=3, elem_id="prompt")
        with gradio.Row():
            slider = partial(_slider, gradio)
            sliders = {
                "temperature": slider(0, 2, first.temperature, step=0.05, label="temperature"),
                "top_k": slider(0, 200, first.top_k or 0, step=1, label="top_k (0: off)"),
                "top_p": slider(0.01, 1, first.top_p or 1, step=0.01, label="top_p (1: off)"),
                "min_p": slider(0, 1, first.min_p or 0, step=0.01, label="min_p (0: off)"),
                "repetition_penalty": slider(
                    1, 2, first.repetition_penalty, step=0.05, label="repetition_penalty"
                ),
                "max_new_tokens": slider(1, 500, first.max_new_tokens, step=1, label="max_new_tokens"),
                "seed": gradio.Number(first.seed, precision=0, label="seed", min_width=200),
            }
        button = gradio.Button("write", variant="primary", elem_id="write")
        outputs = []
        with gradio.Row():
            for number, (_, _, name) in enumerate(models):
                with gradio.Column(min_width=320):
                    gradio.Markdown(f"`{name.replace('`', ' ')}`")
                    outputs.append(gradio.Textbox(label="text", lines=10, elem_id=f"text{number}"))
                    outputs.append(gradio.HTML(elem_id=f"bars{number}"))

        def write(prompt: str, *values: Any) -> Iterator[list[str]]:
            try:
                settings = settings_of(first, dict(zip(sliders, values, strict=True)))
                columns = [("", "")] * len(models)
                for number, model in enumerate(models):
                    for columns[number] in written(model, prompt, settings):
                        yield [part for column in columns for part in column]
            except UserFacingError as error:
                raise gradio.Error(str(error)) from error

        for event in (button.click, prompt.submit):
            event(write, [prompt, *sliders.values()], outputs)
    return page


def _slider(gradio: Any, low: float, high: float, value: float, *, step: float, label: str) -> Any:
    """From `low` to `high`, and as far as the value that was typed: the page refuses all beyond its ends."""
    # Narrower ones cut their numbers off.
    return gradio.Slider(min(low, value), max(high, value), value, step=step, label=label, min_width=200)


def looks(gradio: Any) -> dict[str, Any]:
    """The system's fonts: the default theme asks an outside server for others."""
    font = ["system-ui", "sans-serif"]
    return {"theme": gradio.themes.Default(font=font, font_mono=["monospace"])}


if __name__ == "__main__":
    playground()
