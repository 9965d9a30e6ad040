"""report.html: one page that needs nothing else."""

import json
import re
from html.parser import HTMLParser

import pytest

from gpt_pretrain.training.page import write_page

EVIL = "<script>alert(1)</script>&\x1b[1m\"'"


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links, self.text, self.open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [
            value for key, value in attrs if key in ("src", "href", "xlink:href", "data", "action")
        ]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def page(tmp_path):
    (tmp_path / "samples.txt").write_text(f"--- step 0\nbefore {EVIL}\n\n--- step 9\nafter\n  indented\n\n")
    checkpoint = tmp_path / "checkpoints" / "step-00000009"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(bytes(2_000_000))
    rows = [{"step": float(s), "train/loss": 5.0 - s, "val/loss": 5.5 - s, "lr": 0.1} for s in range(3)]
    summary = {"exit_reason": "finished", "steps": 9, "tokens_seen": 1234, "best_val_loss": 3.5}
    summary["best_checkpoint"] = "elsewhere/checkpoints/step-00000009"
    settings = {"optimizer.lr": 0.1, "data.path": EVIL, "seed": None}
    here = {"commit": "abc", "host": EVIL}
    write_page(
        tmp_path, rows=rows, summary=summary, settings=settings, chosen=["optimizer.lr"], environment=here
    )
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_it_holds_curves_samples_settings_environment_and_checkpoints(page):
    reader = Reader()
    reader.feed(page)
    text = " ".join(reader.text)
    assert reader.tags.count("svg") == 2  # losses, learning rate: what was measured
    for words in (
        "finished after 9 steps and 1,234 tokens, best validation loss 3.500",
        *(
            "after\n  indented",
            "optimizer.lr",
            "commit",
            "abc",
            "step-00000009 (best)",
            "2.0 MB",
            "validation",
        ),
    ):
        assert words in text, words
    assert page.index("step 9") < page.index("step 0")
    assert "<tr class=chosen><td>optimizer.lr</td>" in page


def test_it_asks_for_nothing_and_runs_nothing(page):
    reader = Reader()
    reader.feed(page)
    assert not {"script", "iframe", "object", "link", "img"} & set(reader.tags)
    assert [link for link in reader.links if not link.startswith("#")] == []
    assert "default-src 'none'" in page
    assert not re.search(r"url\((?!#)|@import", page)
    assert EVIL not in page
    assert "\x1b" not in page


def test_a_run_that_measured_and_wrote_nothing_has_a_page_too(tmp_path):
    write_page(tmp_path, rows=[], summary={}, settings={}, chosen=[], environment={})
    assert "</html>" in (tmp_path / "report.html").read_text()


def test_a_run_writes_it_with_what_made_it(tmp_path):
    from tests.training.test_train import run

    run(tmp_path, "trainer.max_steps=2", "logger.pictures=true")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    here = json.loads((tmp_path / "environment.json").read_text())
    assert here["torch"] in page
    assert here["seed"] == 123
    assert here["command"].startswith("python train.py")
    assert "step 0" in page
