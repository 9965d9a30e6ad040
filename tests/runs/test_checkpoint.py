"""A checkpoint is a Hugging Face model, whole or absent, and its damage is noticed."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from gpt_pretrain.config import ModelConfig
from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.model import GPTModel
from gpt_pretrain.runs import checkpoint as checkpoint_module
from gpt_pretrain.runs.checkpoint import TrainingState, write_checkpoint
from gpt_pretrain.runs.folders import (
    find_checkpoint,
    find_checkpoints,
    newest_valid,
    verify,
)
from gpt_pretrain.runs.pretrained import load_model
from gpt_pretrain.tokenizer import build_tokenizer

SHAPE = ModelConfig(vocab_size=257, context_length=8, emb_dim=12, n_heads=3, n_layers=2)


def model_of(shape: ModelConfig, seed: int = 0) -> GPTModel:
    torch.manual_seed(seed)
    model = GPTModel(shape)
    with torch.no_grad():  # biases of zero would hide a mistake
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def evaluated(step) -> dict[str, object]:
    return {"step": step, "val_loss": 1.5}


def save(folder, model: GPTModel, tokenizer: str = "bytes", best: object = None):
    write_checkpoint(
        folder,
        parameters=model.state_dict(),
        model_config=model.config,
        tokenizer=build_tokenizer(tokenizer),
        settings={"tokenizer": {"name": tokenizer}},
        training=TrainingState(
            optimizer_tensors={"a:b": torch.ones(2)},
            progress={"global_step": 3, "callbacks": {"Checkpoints": {"best": best}}},
        ),
    )
    return folder


@pytest.mark.parametrize("tie_weights", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_transformers_opens_a_checkpoint_with_equal_logits(tmp_path, tie_weights, qkv_bias):
    ours = model_of(replace(SHAPE, tie_weights=tie_weights, qkv_bias=qkv_bias))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(save(tmp_path / "c", ours)).eval()
    token_ids = torch.randint(0, 257, (2, 8))
    assert (theirs(token_ids).logits - ours(token_ids)).abs().max() < 1e-5
    assert theirs.config.tie_word_embeddings == tie_weights


@pytest.mark.parametrize("name", ["gpt2", "bytes"])
def test_transformers_opens_the_tokenizer_with_equal_ids(tmp_path, name):
    folder = save(tmp_path / "c", model_of(replace(SHAPE, vocab_size=50257)), name)
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), build_tokenizer(name)
    for text in ("Every effort moves you", "naïve — 東京 🎉\n\n  x", "a" * 50):
        assert theirs(text)["input_ids"] == ours.encode(text).tolist()
        assert theirs.decode(ours.encode(text).tolist()) == text
    assert theirs.eos_token_id == ours.end_of_text_id


@pytest.mark.parametrize("tie_weights", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_what_is_read_is_bit_for_bit_what_was_written(tmp_path, tie_weights, qkv_bias):
    ours = model_of(replace(SHAPE, tie_weights=tie_weights, qkv_bias=qkv_bias))
    read, tokenizer = load_model(save(tmp_path / "c", ours))
    assert read.config == ours.config
    assert tokenizer.name == "bytes"
    for name, parameter in ours.state_dict().items():
        assert torch.equal(parameter, read.state_dict()[name]), name


def test_a_checkpoint_holds_a_model_its_tokenizer_and_what_training_needs(tmp_path):
    folder = save(tmp_path / "c", model_of(SHAPE), "gpt2")
    model = {"config.json", "model.safetensors", "generation_config.json"}
    training = {"optimizer.safetensors", "trainer_state.json", "settings.yaml", "manifest.json"}
    names = {file.name for file in folder.iterdir()}
    assert model | training <= names
    assert {file.rpartition(".")[2] for file in names} <= {"json", "safetensors", "yaml", "txt"}
    assert set(json.loads((folder / "manifest.json").read_text())) == names - {"manifest.json"}


def test_a_checkpoint_gets_its_name_when_all_of_it_is_on_the_disk(tmp_path, monkeypatch):
    done = []
    sync, rename = checkpoint_module._sync, Path.rename

    def renamed(path, target):
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr(checkpoint_module, "_sync", lambda path: (done.append(path.name), sync(path)))
    monkeypatch.setattr(Path, "rename", renamed)
    files = {file.name for file in save(tmp_path / "c", model_of(SHAPE)).iterdir()}
    before, after = done[: done.index("rename")], done[done.index("rename") + 1 :]
    assert set(before[:-1]) == files
    assert before[-1].endswith(".partial")  # the directory itself
    assert after == [tmp_path.name]


def test_a_write_that_fails_leaves_the_old_checkpoint_and_nothing_else(tmp_path, monkeypatch):
    folder = save(tmp_path / "c", model_of(SHAPE))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "fingerprint", full)
    with pytest.raises(OSError, match="No space"):
        save(folder, model_of(SHAPE, seed=1))
    verify(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660)])
def test_every_file_has_the_mode_that_the_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        folder = save(tmp_path / "c", model_of(SHAPE))
    finally:
        os.umask(before)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in folder.iterdir()} == dict.fromkeys(
        (file.name for file in folder.iterdir()), oct(mode)
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "optimizer.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_damage_is_noticed_and_named(tmp_path, name, damage):
    folder = save(tmp_path / "c", model_of(SHAPE))
    file = folder / name
    content = bytearray(file.read_bytes())
    if damage == "delete":
        file.unlink()
    else:
        content[-1] ^= 1
        file.write_bytes(content if damage == "flip" else content[:-1])
    with pytest.raises(ArtifactError, match=name):
        verify(folder)


def test_a_damaged_checkpoint_is_passed_over_and_without_another_one_an_error(tmp_path):
    older = save(tmp_path / "checkpoints" / "step-00000001", model_of(SHAPE))
    newer = save(tmp_path / "checkpoints" / "step-00000002", model_of(SHAPE))
    assert newest_valid(tmp_path) == (newer, [])
    (newer / "config.json").unlink()
    found, passed_over = newest_valid(tmp_path)
    assert found == older
    assert "step-00000002" in passed_over[0]
    (older / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match="no checkpoint that can be used"):
        newest_valid(tmp_path)


def test_a_manifest_that_names_files_elsewhere_is_refused(tmp_path):
    folder = save(tmp_path / "c", model_of(SHAPE))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["../secret"] = {"bytes": 0, "sha256": ""}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="outside"):
        verify(folder)


def test_a_run_means_its_best_checkpoint_as_its_newest_one_knows_it(tmp_path):
    """Whatever became of the run's end, and of its summary."""
    for step in (1, 2):
        save(tmp_path / "checkpoints" / f"step-{step:08d}", model_of(SHAPE), best=evaluated(step))
    assert find_checkpoint(tmp_path).name == "step-00000002"
    save(tmp_path / "checkpoints" / "step-00000003", model_of(SHAPE), best=evaluated(1))
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-00000001"


@pytest.mark.parametrize(
    "best", [{}, None, [], "x", *map(evaluated, (None, "x", 99, -1, 10**400)), {"step": 1}]
)
def test_a_state_that_names_no_best_leaves_the_newest_checkpoint(tmp_path, best):
    newest = save(tmp_path / "checkpoints" / "step-00000002", model_of(SHAPE), best=best)
    assert find_checkpoint(tmp_path) == newest


def test_checkpoints_are_told_apart_by_their_step_however_long_the_run(tmp_path):
    for step in (99999999, 100000000, 2):
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    steps = [int(folder.name.removeprefix("step-")) for folder in find_checkpoints(tmp_path)]
    assert steps == [100000000, 99999999, 2]
