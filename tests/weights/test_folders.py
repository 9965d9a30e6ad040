"""Which file of a folder is the model, and what counts beside it: as in transformers, or a line why not."""

import json

import pytest
import torch
from transformers import AutoConfig, GPT2LMHeadModel

from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.weights.read import build_model, open_weights
from tests.weights import foreign
from tests.weights.foreign import logits, reference

SMALL = (8, 2, 2)


def another(model):
    """The same model with other numbers."""
    changed = GPT2LMHeadModel(model.config).eval()
    changed.load_state_dict({name: 2 * tensor for name, tensor in model.state_dict().items()})
    return changed


def check_as_transformers_opens_it(folder):
    weights = open_weights(folder)
    model = build_model(weights, weights.config).eval()
    theirs = GPT2LMHeadModel.from_pretrained(folder).eval()
    torch.testing.assert_close(logits(model), logits(theirs), atol=1e-5, rtol=0)
    return weights.path.name


def trainer_states(folder):
    torch.save(
        {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}, folder / "optimizer.pt"
    )
    torch.save({"args": "anything"}, folder / "training_args.bin")
    torch.save({"python": 1}, folder / "rng_state.pth")


def bin_shards(model, folder):
    state = model.state_dict()
    names = sorted(state)
    files = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(names)}
    for file in set(files.values()):
        torch.save({name: state[name].clone() for name in names if files[name] == file}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": files}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def test_a_trainer_s_folder_is_opened_by_the_model_in_it(tmp_path):
    foreign.huggingface_bin(reference(SMALL), tmp_path)
    trainer_states(tmp_path)
    assert check_as_transformers_opens_it(tmp_path) == "pytorch_model.bin"
    another(reference(SMALL)).save_pretrained(tmp_path)
    assert check_as_transformers_opens_it(tmp_path) == "model.safetensors"


def test_of_two_indexes_the_one_of_safetensors_is_taken(tmp_path):
    foreign.huggingface_sharded(reference((64, 2, 2)), tmp_path)
    bin_shards(another(reference((64, 2, 2))), tmp_path)
    trainer_states(tmp_path)
    assert check_as_transformers_opens_it(tmp_path) == "model.safetensors.index.json"
    for file in tmp_path.glob("*safetensors*"):
        file.unlink()
    assert check_as_transformers_opens_it(tmp_path) == "pytorch_model.bin.index.json"


def test_one_whole_file_goes_before_the_index_of_another_format(tmp_path):
    foreign.huggingface(reference((64, 2, 2)), tmp_path)
    bin_shards(another(reference((64, 2, 2))), tmp_path)
    assert check_as_transformers_opens_it(tmp_path) == "model.safetensors"


def refusal(path):
    with pytest.raises(ArtifactError) as refused:
        open_weights(path, n_heads=2)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def test_torch_s_old_form_is_recognised_and_its_remedy_works(tmp_path):
    foreign.huggingface_bin(reference(SMALL), tmp_path)
    file = tmp_path / "pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    torch.save(state, file, _use_new_zipfile_serialization=False)
    for path in (tmp_path, file):
        assert "torch.save(torch.load(<file>, weights_only=True), <file>)" in refusal(path)
    trainer_states(tmp_path)
    assert f"{file} is in torch's old form" in refusal(tmp_path)
    torch.save(torch.load(file, weights_only=True), file)
    check_as_transformers_opens_it(tmp_path)


def pointer(file):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 548105171\n"
    file.write_text(text)


def test_a_git_lfs_pointer_says_what_to_run(tmp_path):
    foreign.huggingface(reference(SMALL), tmp_path)
    pointer(tmp_path / "flax_model.msgpack")
    check_as_transformers_opens_it(tmp_path)  # the model itself is there
    pointer(tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert "model.safetensors is a Git LFS pointer" in refusal(path)
        assert "git lfs pull" in refusal(path)
    (tmp_path / "model.safetensors").unlink()
    assert "git lfs pull" in refusal(tmp_path)


def test_a_shard_that_is_a_git_lfs_pointer_says_so_too(tmp_path):
    foreign.huggingface_sharded(reference((64, 2, 2)), tmp_path)
    pointer(sorted(tmp_path.glob("model-*"))[-1])
    assert "git lfs pull" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "hparams.json"])
@pytest.mark.parametrize("write", [foreign.book, foreign.nanogpt, foreign.book_safetensors])
def test_another_program_s_settings_beside_the_book_s_and_nanogpt_s_files_are_not_read(tmp_path, write, name):
    write(reference(SMALL), tmp_path)
    (tmp_path / name).write_text('{"lr": 1, "n_head": 4, "model_type": "llama"}')
    assert open_weights(tmp_path, n_heads=2).config.n_heads == 2
    (tmp_path / name).write_text("[")
    open_weights(tmp_path, n_heads=2)


def test_settings_beside_transformers_tensors_that_are_not_its_own_are_refused_with_a_remedy(tmp_path):
    foreign.huggingface(reference(SMALL), tmp_path)
    (tmp_path / "config.json").write_text('{"lr": 1}')
    assert "has no model_type" in refusal(tmp_path)
    (tmp_path / "config.json").unlink()
    assert open_weights(tmp_path, n_heads=2).config.n_layers == 2


ALIASES = {
    "n_positions": "max_position_embeddings",
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
}


def renamed(folder, names):
    file = folder / "config.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps({names.get(key, key): value for key, value in said.items()}))
    return file


@pytest.mark.parametrize("names", [ALIASES, *({key: alias} for key, alias in ALIASES.items())], ids=str)
def test_sizes_are_read_by_the_names_that_transformers_reads_them_by(tmp_path, names):
    foreign.huggingface(reference(SMALL), tmp_path)
    renamed(tmp_path, names)
    assert GPT2LMHeadModel.config_class.attribute_map == {alias: key for key, alias in ALIASES.items()}
    assert AutoConfig.from_pretrained(tmp_path).n_head == open_weights(tmp_path).config.n_heads == 2
    check_as_transformers_opens_it(tmp_path)


def test_two_names_of_one_size_must_agree(tmp_path):
    foreign.huggingface(reference(SMALL), tmp_path)
    file = tmp_path / "config.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"num_attention_heads": 2}))
    assert open_weights(tmp_path).config.n_heads == 2
    file.write_text(json.dumps(said | {"num_attention_heads": 4}))
    assert "n_head=2 and num_attention_heads=4" in refusal(tmp_path)
    file.write_text(json.dumps({k: v for k, v in said.items() if k != "n_layer"} | {"num_hidden_layers": 3}))
    assert "n_layers=3" in refusal(tmp_path)
