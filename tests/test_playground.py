"""The playground: the chapter's probabilities as bars. tests/test_browser.py opens the page."""

import re
from itertools import pairwise

import pytest
import torch

from gpt_pretrain.config import (
    DecodingConfig,
    ModelSettings,
    PlaygroundConfig,
    TokenizerConfig,
    WeightsConfig,
)
from gpt_pretrain.decoding import scoring as decoding_scoring
from gpt_pretrain.decoding.choose import distribution
from gpt_pretrain.errors import InputError
from gpt_pretrain.playground import bars, build_page, load, settings_of, written
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


def test_an_emptied_field_is_as_on_the_command_line_and_one_out_of_range_is_told():
    assert settings_of(DecodingConfig(seed=7), {"seed": None, "temperature": 2}).seed == 7
    for values in ({"seed": -1}, {"seed": 1e30}, {"temperature": -1}):
        with pytest.raises(InputError, match="out of range"):
            settings_of(DecodingConfig(), values)


def test_bars_obey_penalties_biases_bans_and_the_padded_ids(loaded):
    with torch.no_grad():
        logits = reference(SIZE)(torch.tensor([list(b"ab")])).logits[0, -1]
    expected = logits.clone()
    for id_ in b"ab":
        expected[id_] = expected[id_] * 1.5 if expected[id_] < 0 else expected[id_] / 1.5
    expected[ord("b")] -= 2  # of the new text alone
    expected[ord("q")] += 9
    expected[ord("z")] = -torch.inf
    settings = DecodingConfig(
        repetition_penalty=1.5, presence_penalty=2.0, logit_bias={"q": 9.0}, banned_words=["z"]
    )
    table = bars(loaded, "a", settings, "b")
    assert shares(table) == pytest.approx(
        expected.softmax(-1).sort(descending=True)[0][:12].tolist(), abs=1e-4
    )
    assert "&#x27;q&#x27;" in table.partition("</code>")[0]
    everything = DecodingConfig(logit_bias={chr(id_): -torch.inf for id_ in range(128)}, min_new_tokens=1)
    banned = distribution(logits[None], DecodingConfig())[0][128:256]
    assert shares(bars(loaded, "ab", everything))[0] == pytest.approx(
        float(banned.max() / banned.sum()), abs=1e-4
    )


def test_where_every_token_is_ruled_out_the_bars_say_so(loaded, monkeypatch):
    monkeypatch.setattr(decoding_scoring, "next_token_logits", lambda *_: torch.full((257,), -torch.inf))
    assert bars(loaded, "ab", DecodingConfig()) == "<p>every token is ruled out</p>"


def test_the_model_to_compare_with_has_its_own_shape_and_tokenizer(loaded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    foreign.huggingface(reference(SIZE, vocabulary=258), tmp_path / "wider")
    (tmp_path / "ours").mkdir()
    foreign.ours(reference((32, 2, 2)), tmp_path / "ours")
    sections = {
        "model": ModelSettings(emb_dim=24, n_heads=4, n_layers=3),  # of the first
        "weights": WeightsConfig(name="checkpoint", path="wider"),
        "tokenizer": TokenizerConfig(name="bytes", special_tokens=["<pad>"]),
        "decoding": DecodingConfig(),
    }
    first, second = load(PlaygroundConfig(**sections, compare="ours"))
    assert [model.config.emb_dim for model, _, _ in (first, second)] == [24, 32]
    assert [tokenizer.vocab_size for _, tokenizer, _ in (first, second)] == [258, 257]
    assert second[2] == "ours"
    both = load(PlaygroundConfig(**sections, compare="wider"))  # which bring no tokenizer
    assert [tokenizer.vocab_size for _, tokenizer, _ in both] == [258, 258]
    with pytest.raises(InputError, match="compare=nowhere: no such folder or file"):
        load(PlaygroundConfig(**sections, compare="nowhere"))


def test_sliders_reach_as_far_as_what_was_typed(loaded):
    gradio = pytest.importorskip("gradio", reason="gradio is not installed")
    first = DecodingConfig(
        max_new_tokens=1000, temperature=3.0, top_k=300, top_p=0.001, repetition_penalty=0.5
    )
    page = build_page(gradio, [loaded], first)
    sliders = {block.label: block for block in page.blocks.values() if isinstance(block, gradio.Slider)}
    values = {label.partition(" ")[0]: slider.preprocess(slider.value) for label, slider in sliders.items()}
    assert len(values) == 6
    assert settings_of(first, values) == first


def test_without_gradio_one_line_says_how_to_install_it(typed, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    code, error = typed("playground")
    assert (code, "pip install '.[playground]'" in error) == (2, True)
