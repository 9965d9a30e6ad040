"""Which weights the settings name, and the tokenizer that goes with them."""

import dataclasses

import pytest

from gpt_pretrain.config import ModelSettings, WeightsConfig
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.runs.pretrained import load_pretrained, open_pretrained, tokenizer_of
from gpt_pretrain.weights.read import open_weights
from tests.weights import foreign
from tests.weights.foreign import reference

SIZE = (24, 4, 3)
FROM_CHECKPOINT = WeightsConfig(name="checkpoint")


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
    _, tokenizer, source = load_pretrained(FROM_CHECKPOINT, ModelSettings(), str(checkpoint))
    assert (tokenizer.name, source) == ("bytes", checkpoint)


@pytest.mark.parametrize("content", ["", "[]", '{"name": 3}', "{}", "{", '{"name": "characters"}'])
def test_settings_that_name_no_tokenizer_are_refused(checkpoint, content):
    (checkpoint / "manifest.json").unlink()
    (checkpoint / "tokenizer_settings.json").write_text(content)
    with pytest.raises(ArtifactError, match="its tokenizer cannot be read") as refused:
        load_pretrained(FROM_CHECKPOINT, ModelSettings(), str(checkpoint))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("vocabulary", "name"), [(257, "bytes"), (50257, "gpt2"), (50304, "gpt2"), (1000, None)]
)
def test_other_weights_get_the_tokenizer_with_as_many_ids(tmp_path, vocabulary, name):
    foreign.huggingface(reference(SIZE), tmp_path)
    weights = open_weights(tmp_path)
    weights = dataclasses.replace(weights, config=dataclasses.replace(weights.config, vocab_size=vocabulary))
    if name is None:
        with pytest.raises(InputError, match="1000 token ids: of no tokenizer"):
            tokenizer_of(weights)
    else:
        assert tokenizer_of(weights).name == name


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
