"""Which weights the settings name, and the tokenizer that goes with them."""

import dataclasses

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt_pretrain.config import ModelConfig, ModelSettings, TokenizerConfig, WeightsConfig
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.model import GPTModel
from gpt_pretrain.runs.pretrained import load_model, load_pretrained, open_pretrained, tokenizer_of
from gpt_pretrain.tokenizer import build_tokenizer, count_pieces, learn_ranks
from gpt_pretrain.weights.read import open_weights
from gpt_pretrain.weights.write import write_weights
from tests.weights import foreign
from tests.weights.foreign import reference

SIZE = (24, 4, 3)
FROM_CHECKPOINT = WeightsConfig(name="checkpoint")
BESIDE = TokenizerConfig(name="from_weights")


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "run" / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    foreign.ours(reference(SIZE), folder)
    return folder


@pytest.mark.parametrize("level", [0, 1, 2], ids=["file", "checkpoint", "run"])
@pytest.mark.parametrize("setting", ["checkpoint", "weights.path"])
def test_a_run_its_checkpoint_and_a_file_all_open(checkpoint, level, setting):
    path = str([checkpoint / "model.safetensors", checkpoint, checkpoint.parent.parent][level])
    if setting == "checkpoint":
        opened = open_pretrained(FROM_CHECKPOINT, ModelSettings(), path)
    else:
        opened = open_pretrained(WeightsConfig(name="checkpoint", path=path), ModelSettings())
    assert opened.path == checkpoint / "model.safetensors"


def test_a_checkpoint_brings_its_own_tokenizer(checkpoint):
    _, tokenizer, source = load_pretrained(FROM_CHECKPOINT, ModelSettings(), BESIDE, str(checkpoint))
    assert (tokenizer.name, source) == ("bytes", checkpoint)


@pytest.mark.parametrize("content", ["", "[]", '{"name": 3}', "{}", "{", '{"name": "characters"}'])
def test_settings_that_name_no_tokenizer_are_refused(checkpoint, content):
    (checkpoint / "manifest.json").unlink()
    (checkpoint / "tokenizer_settings.json").write_text(content)
    with pytest.raises(ArtifactError, match="its tokenizer cannot be read") as refused:
        load_pretrained(FROM_CHECKPOINT, ModelSettings(), BESIDE, str(checkpoint))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("vocabulary", [257, 50257, 50304, 100277])
def test_how_many_ids_there_are_never_decides_what_they_mean(tmp_path, vocabulary):
    foreign.huggingface(reference(SIZE), tmp_path)
    weights = open_weights(tmp_path)
    weights = dataclasses.replace(weights, config=dataclasses.replace(weights.config, vocab_size=vocabulary))
    with pytest.raises(InputError, match=r"does not say what its .* token ids mean: name the tokenizer"):
        tokenizer_of(weights, FROM_CHECKPOINT, BESIDE)
    assert tokenizer_of(weights, FROM_CHECKPOINT, TokenizerConfig(name="bytes")).name == "bytes"
    assert tokenizer_of(weights, WeightsConfig(name="gpt2"), BESIDE).name == "gpt2"  # OpenAI's own


@pytest.mark.parametrize("vocabulary", [259, 60000])
@pytest.mark.parametrize("by", ["transformers", "us"])
@pytest.mark.parametrize("format", ["huggingface", "book", "openai"])
def test_a_folder_of_any_format_opens_with_the_tokenizer_that_it_was_given(tmp_path, format, by, vocabulary):
    """Below GPT-2's 50,257 ids and above, where its BPE was once taken without a word."""
    tokenizer = build_tokenizer("trained", learn_ranks(count_pieces(["the statement"] * 2), 258))
    config = ModelConfig(vocab_size=vocabulary, context_length=8, emb_dim=4, n_heads=1, n_layers=1)
    model = GPTModel(config)
    write_weights(tmp_path / "a", format, model.state_dict(), config, tokenizer)
    folder = tmp_path / "a"
    if by == "transformers":
        if format != "huggingface":
            pytest.skip("which transformers does not write")
        folder = tmp_path / "b"
        AutoModelForCausalLM.from_pretrained(tmp_path / "a").save_pretrained(folder)
        AutoTokenizer.from_pretrained(tmp_path / "a").save_pretrained(folder)
        assert not (folder / "tokenizer_settings.json").exists()
    opened, found = load_model(folder)
    assert opened.config.vocab_size == vocabulary
    text = "the statement that the"
    assert found.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert found.end_of_text_id == tokenizer.end_of_text_id == 258


def test_another_tokenizer_than_the_one_beside_the_weights_is_refused(checkpoint):
    with pytest.raises(InputError, match=r"id 0 means b'\\x00', not b'!'\nset tokenizer=from_weights"):
        load_pretrained(FROM_CHECKPOINT, ModelSettings(), TokenizerConfig(name="gpt2"), str(checkpoint))


def test_a_tokenizer_reached_by_a_link_out_of_its_folder_is_not_read(tmp_path):
    foreign.huggingface(reference(SIZE), tmp_path / "theirs")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "theirs" / "tokenizer.json").symlink_to(tmp_path / "tokenizer.json")
    with pytest.raises(ArtifactError, match="leads out of its folder"):
        load_model(tmp_path / "theirs")


def test_a_damaged_checkpoint_is_refused_before_it_is_read(checkpoint):
    file = checkpoint / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # in a tensor: the format itself would not notice
    file.write_bytes(content)
    open_weights(file)  # the control
    (checkpoint / "manifest.json").write_text('{"model.safetensors": {"bytes": 1, "sha256": "x"}}')
    with pytest.raises(ArtifactError, match=r"model\.safetensors is not what its manifest says"):
        open_pretrained(FROM_CHECKPOINT, ModelSettings(), str(checkpoint))


def test_two_sources_at_once_are_refused(checkpoint):
    with pytest.raises(InputError, match="give one of them"):
        open_pretrained(WeightsConfig(name="gpt2"), ModelSettings(), str(checkpoint))
