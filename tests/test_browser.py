"""What a browser shows: TensorBoard on runs and a sweep, report.html and the playground wide and narrow.

Headless Chromium.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import QUICK, ROOT

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
SETTINGS = [
    *QUICK,
    "logger.pictures=true",
    "trainer.eval_batches=1",
    "trainer.log_every=1",
    "trainer.max_steps=3",
    "trainer.sample_prompt=Every effort moves you",
]


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Open an address: browse(url, width) gives the page, and fails on script errors and outside requests."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).is_file():
        pytest.skip("chromium is not installed: apt-get install chromium")

    @contextmanager
    def open_(url: str, width: int = 1400):
        errors, outside = [], []
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch_persistent_context(
                tmp_path_factory.mktemp("browser"),
                executable_path=CHROMIUM,
                args=FLAGS,
                viewport={"width": width, "height": 900},
            )
            page = browser.new_page()
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("request", lambda request: outside.append(request.url))
            page.goto(url)
            yield page
            browser.close()
        ours = ("file:", "data:", "blob:", "http://localhost", "http://127.0.0.1")
        assert errors == []
        assert [address for address in outside if not address.startswith(ours)] == []

    return open_


@contextmanager
def served(arguments: list[str], address: str):
    """The address, a regular expression, that `python -m` says while it serves."""
    environment = {**os.environ, "LANG": "C", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    try:
        watchdog = threading.Timer(120, server.kill)
        watchdog.start()
        found = next(found for line in server.stdout if (found := re.search(address, line)))
        threading.Thread(target=server.stdout.read, daemon=True).start()
        yield found[0]
    finally:
        watchdog.cancel()
        server.kill()
        server.wait()


def test_tensorboard_shows_a_run_and_a_sweep_as_they_are_meant(typed, tmp_path, browse):
    assert typed("train", *SETTINGS, "hydra.run.dir=outputs/day/alone", "decoding.max_new_tokens=9")[0] == 0
    swept = ["optimizer.lr=1e-3,3e-3", "hydra.sweep.dir=multirun/day/swept"]
    assert typed("train", "-m", *SETTINGS, *swept)[0] == 0
    names = ["outputs/day/alone", "multirun/day/swept/0", "multirun/day/swept/1"]
    logs = ["tensorboard.main", "--logdir", str(tmp_path), "--port", "0"]
    with served(logs, r"http://localhost:\d+/") as address:
        with browse(f"{address}#timeseries") as page:
            cards = page.locator("card-view")
            cards.first.wait_for(timeout=60_000)
            page.get_by_text("/over steps").first.wait_for(timeout=60_000)
            first = cards.first.inner_text()
            assert "1 loss/over steps" in first.replace("\n", "")
            for name in names:  # both losses of every run on the first chart
                assert page.get_by_text(name, exact=True).count() >= 1, name
                assert page.get_by_text(f"{name}/val", exact=True).count() >= 1, name
            groups = [text.strip() for text in page.locator(".group-text, .group-title").all_inner_texts()]
            assert not [group for group in groups if "epoch" in group or "hp_metric" in group]
        with browse(f"{address}#text") as page:
            sample = page.locator("pre", has_text="Every effort moves you").first
            sample.wait_for(timeout=60_000)
            assert sample.inner_text().startswith("Every effort moves you")
        with browse(f"{address}#hparams") as page:
            page.get_by_text("(swept) optimizer.lr", exact=True).first.wait_for(timeout=60_000)
            for column in ("(typed)", "(swept) optimizer.lr", "(final)/best_val_loss", "(final)/val_loss"):
                assert page.get_by_text(column, exact=True).count() >= 1, column
            rows = [page.get_by_text(name, exact=True).count() for name in names]
            assert rows == [1, 1, 1]
            assert page.get_by_text("0.0030000", exact=True).count() == 2  # among the swept, and among all


@pytest.mark.parametrize("width", [1400, 360])
def test_the_report_reads_well_wide_and_narrow(width, typed, tmp_path, browse):
    assert typed("train", *SETTINGS, "hydra.run.dir=run")[0] == 0
    with browse((tmp_path / "run" / "report.html").as_uri(), width) as page:
        for heading in ("Curves", "What it wrote", "Settings", "Environment", "Checkpoints"):
            assert page.get_by_role("heading", name=heading, exact=True).is_visible()
        assert page.locator("svg").count() >= 4
        assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing to scroll sideways
        narrowest = min(box["width"] for svg in page.locator("svg").all() if (box := svg.bounding_box()))
        assert narrowest >= 300
        letters = page.evaluate(
            "Math.min(...[...document.querySelectorAll('svg text')]"
            ".map(text => text.getBoundingClientRect().height))"
        )
        assert letters >= 9  # pixels


@pytest.mark.parametrize("width", [1400, 360])
def test_the_playground_writes_with_two_models_wide_and_narrow(width, typed, tmp_path, browse):
    pytest.importorskip("gradio", reason="gradio is not installed")
    assert typed("train", *SETTINGS, "hydra.run.dir=run")[0] == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    playground = ["gpt_pretrain.playground", "checkpoint=run", "compare=run", f"port={port}"]
    with (
        served([*playground, "decoding.max_new_tokens=200"], rf"http://127.0.0.1:{port}") as address,
        browse(address, width) as page,
    ):
        page.locator("#prompt textarea").fill("ab")
        page.locator("#write").click()
        texts = [page.locator(f"#text{number} textarea") for number in (0, 1)]
        lengths = []
        while page.locator("#bars1 table").count() == 0:  # the second begins when the first has ended
            lengths.append(len(texts[0].input_value()))
            page.wait_for_timeout(20)
        assert len(set(lengths)) > 2, "the text does not stream"
        page.wait_for_function("document.querySelector('#text1 textarea').value.length > 10")
        written = texts[0].input_value()
        assert written.startswith("ab")
        page.wait_for_function("text => document.querySelector('#text1 textarea').value == text", arg=written)
        for number in (0, 1):
            assert page.locator(f"#bars{number} tr").count() == 13  # a heading, twelve tokens
        assert page.evaluate("document.documentElement.scrollWidth") <= width
