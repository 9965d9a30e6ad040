"""The playground: the chapter's probabilities as bars. tests/test_browser.py opens the page."""

import re
from itertools import pairwise

import pytest
import torch

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding import scoring as decoding_scoring
from gpt_pretrain.errors import InputError
from gpt_pretrain.playground import bars, settings_of, written
from gpt_pretrain.runs.pretrained import load_model
from tests.weights import foreign
from tests.weights.foreign import reference

SIZE = (24, 4, 3)


@pytest.fixture
def loaded(tmp_path):
    foreign.huggingface(reference(SIZE), tmp_path / "theirs")
    return *load_model(tmp_path / "theirs", "bytes"), "theirs"


def shares(table):
    return [float(share) for share in re.findall(r"<td>(0\.\d+|1\.0+)</td>", table)]


def test_bars_are_the_probabilities_that_a_token_is_drawn_with(loaded):
    with torch.no_grad():
        logits = reference(SIZE)(torch.tensor([list(b"ab")])).logits[0, -1]
    top = logits.topk(3).values
    assert shares(bars(loaded, "ab", DecodingConfig(top_k=3, temperature=0.5)))[:4] == pytest.approx(
        [*(top / 0.5).softmax(-1).tolist(), 0.0], abs=1e-4
    )
    assert shares(bars(loaded, "ab", DecodingConfig(temperature=0.0)))[:2] == [1.0, 0.0]
    assert shares(bars(loaded, "", DecodingConfig()))  # of the beginning of a text


def test_tokens_are_shown_as_text_and_never_as_markup(loaded, monkeypatch):
    monkeypatch.setattr(decoding_scoring, "next_token_logits", lambda *_: torch.eye(257)[ord("<")] * 9)
    table = bars(loaded, "ab", DecodingConfig())
    assert "<code>&#x27;&lt;&#x27;</code>" in table
    assert set(re.findall(r"</?(\w+)", table)) == {"table", "tr", "th", "td", "code", "div"}


def test_the_text_streams_and_is_what_generation_writes(loaded):
    settings = DecodingConfig(max_new_tokens=5, temperature=0.0)
    steps = [text for text, _ in written(loaded, "ab", settings)]
    assert steps[0] == "ab"
    assert all(later.startswith(earlier) for earlier, later in pairwise(steps))


def test_sliders_at_their_ends_are_off_and_contradictions_are_told():
    first = DecodingConfig(max_new_tokens=7)
    values = {"top_k": 0, "top_p": 1, "min_p": 0, "temperature": 1, "seed": 3.0, "max_new_tokens": 9}
    settings = settings_of(first, values)
    assert (settings.top_k, settings.top_p, settings.min_p) == (None, None, None)
    assert (settings.max_new_tokens, settings.seed) == (9, 3)
    assert settings_of(first, values | {"top_k": 5.0, "top_p": 0.5}).top_k == 5
    with pytest.raises(InputError, match="min_new_tokens=8 exceeds"):
        settings_of(DecodingConfig(min_new_tokens=8), values | {"max_new_tokens": 3})


def test_without_gradio_one_line_says_how_to_install_it(typed, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    code, error = typed("playground")
    assert (code, "pip install 'gpt_pretrain[playground]'" in error) == (2, True)
