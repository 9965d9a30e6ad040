"""report.html: a run on one page that asks for nothing from outside and reads well on a phone."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from gpt_pretrain.foreign import read_bytes
from gpt_pretrain.runs.folders import find_checkpoints
from gpt_pretrain.terminal.text import printable
from gpt_pretrain.training.plots import Rows, small_figure

LARGEST_SAMPLES = 16 << 20  # bytes of samples.txt
SHOWN_SAMPLES = 40  # the newest
# Each figure: its title, its curves by key and label, and whether it has a logarithmic axis.
FIGURES = (
    (
        "loss",
        {"train/loss": "training", "train/eval_loss": "training, no dropout", "val/loss": "validation"},
        False,
    ),
    ("perplexity", {"train/perplexity": "training", "val/perplexity": "validation"}, True),
    ("validation, bits per byte", {"val/bits_per_byte": "validation"}, False),
    ("learning rate", {"lr": "lr"}, False),
    ("gradient norm", {"grad_norm": "before clipping"}, False),
    ("tokens per second", {"tokens_per_sec": "tokens/s"}, False),
)
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 1rem; }
.figures svg { width: 100%; height: auto; background: white; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; } tr { border-bottom: 1px solid #8884; }
td, th { text-align: left; padding: .2rem .6rem .2rem 0; vertical-align: top; overflow-wrap: anywhere; }
td:first-child { width: 40%; } .chosen { font-weight: 600; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #8881; padding: .6rem; border-radius: 6px; }
summary { cursor: pointer; } .note { opacity: .7; }
"""


def write_page(
    run: Path,
    *,
    rows: Rows,
    summary: Mapping[str, Any],
    settings: Mapping[str, Any],
    chosen: Iterable[str],
    environment: Mapping[str, Any],
) -> None:
    """Write the page into the run's folder. `chosen` are the dotted keys of settings that stand out."""
    drawn = [
        small_figure(rows, present, title=title, logarithmic=logarithmic)
        for title, curves, logarithmic in FIGURES
        if (present := {key: label for key, label in curves.items() if any(key in row for row in rows)})
    ]
    name = "/".join(run.absolute().parts[-2:])
    parts = [
        f"<h1>{_text(name)}</h1>",
        f"<p>{_text(_conclusion(summary))}</p>",
        "<h2>Curves</h2>" if drawn else "",
        f'<div class="figures">{"".join(drawn)}</div>',
        "<h2>What it wrote</h2>",
        *_samples(run),
        "<h2>Summary</h2>",
        _table(summary),
        "<h2>Settings</h2>",
        '<p class="note">Those in bold tell this run from a default one.</p>',
        _table(settings, set(chosen)),
        "<h2>Environment</h2>",
        _table(environment),
        "<h2>Checkpoints</h2>",
        _checkpoints(run, summary),
    ]
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # nothing is loaded from anywhere, whatever a sample or a setting holds
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">"
        f"<title>{_text(name)}</title><style>{STYLE}</style></head><body>"
    )
    (run / "report.html").write_text(head + "\n".join(parts) + "</body></html>\n", encoding="utf-8")


def _conclusion(summary: Mapping[str, Any]) -> str:
    loss = summary.get("best_val_loss")
    best = "" if loss is None else f", best validation loss {loss:.3f}"
    steps, tokens = summary.get("steps", 0), summary.get("tokens_seen", 0)
    return f"{summary.get('exit_reason')} after {steps:,} steps and {tokens:,} tokens{best}"


def _samples(run: Path) -> list[str]:
    """Each sample with its step, newest first; the older ones folded."""
    file = run / "samples.txt"
    text = read_bytes(file, LARGEST_SAMPLES).decode("utf-8", "replace") if file.is_file() else ""
    parts = re.split(r"^--- step (\d+)\n", text, flags=re.MULTILINE)
    found = list(zip(parts[1::2], parts[2::2], strict=True))[::-1]
    shown = [
        f"<details{' open' if at in (0, len(found) - 1) else ''}><summary>step {int(step):,}</summary>"
        f"<pre>{_text(sample.rstrip())}</pre></details>"
        for at, (step, sample) in enumerate(found)
        if at < SHOWN_SAMPLES or at == len(found) - 1
    ]
    return shown or ["<p>nothing</p>"]


def _checkpoints(run: Path, summary: Mapping[str, Any]) -> str:
    best = Path(str(summary.get("best_checkpoint"))).name
    sizes = {
        f"{folder.name}{' (best)' if folder.name == best else ''}": (
            f"{sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 1e6:,.1f} MB"
        )
        for folder in find_checkpoints(run)
    }
    return _table(sizes) if sizes else "<p>none</p>"


def _table(values: Mapping[str, Any], chosen: set[str] | Sequence[str] = ()) -> str:
    rows = [
        f"<tr{' class=chosen' if key in chosen else ''}><td>{_text(key)}</td><td>{_text(value)}</td></tr>"
        for key, value in values.items()
    ]
    return f"<table>{''.join(rows)}</table>"


def _text(value: object) -> str:
    return escape(printable("–" if value is None else str(value)))
