"""`python -m gpt_pretrain.export`, and what other programs read of it."""

import json
import os
import random
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, GPT2LMHeadModel

from gpt_pretrain.export import export
from gpt_pretrain.generation.questions import answer_choices, read_choices, score
from gpt_pretrain.runs.pretrained import load_model
from gpt_pretrain.weights.read import open_weights
from tests.weights import foreign
from tests.weights.book_model import BookModel
from tests.weights.foreign import CONTEXT, VOCABULARY, logits, reference

SIZE = (24, 4, 3)


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """Type an export in a folder where `ours/` is a checkpoint: exit code and standard error."""
    (tmp_path / "ours").mkdir()
    foreign.ours(reference(SIZE), tmp_path / "ours")
    monkeypatch.chdir(tmp_path)

    def type_(*arguments):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["export", *arguments])
        try:
            export()
        except SystemExit as exit_:
            return exit_.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return type_


def tensors_of(path):
    weights = open_weights(path, n_heads=4)
    return {name: stored.read() for name, stored in weights.tensors.items()}


@pytest.mark.parametrize("shards", [[], ["max_shard_mb=1"]])
@pytest.mark.parametrize("format", ["huggingface", "book", "openai"])
def test_reading_writing_and_reading_again_gives_the_same_bits(typed, tmp_path, format, shards):
    if shards and format == "openai":
        pytest.skip("one data file always")
    assert typed("checkpoint=ours", f"format={format}", "out=out", *shards) == (0, "")
    before, after = open_weights(tmp_path / "ours"), open_weights(tmp_path / "out")
    first, second = before.parameters(), after.parameters()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert typed("checkpoint=out", f"format={format}", "out=again", *shards)[0] == 0
    again, once = tensors_of(tmp_path / "again"), tensors_of(tmp_path / "out")
    assert again.keys() == once.keys()
    assert all(torch.equal(again[name], once[name]) for name in once)


def test_transformers_opens_a_sharded_export(typed, tmp_path, monkeypatch):
    import gpt_pretrain.weights.write as write

    own = write.write_weights  # megabytes are too large a unit for so small a model
    monkeypatch.setattr(write, "write_weights", lambda *a, **k: own(*a[:5], 20_000, **k))
    assert typed("checkpoint=ours", "format=huggingface", "out=out")[0] == 0
    files = sorted(file.name for file in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    theirs, report = GPT2LMHeadModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(logits(theirs), logits(reference(SIZE)))
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == VOCABULARY


def test_the_books_model_loads_an_export_strictly(typed, tmp_path):
    assert typed("checkpoint=ours", "format=book", "out=out")[0] == 0
    book = BookModel(VOCABULARY, CONTEXT, *SIZE).eval()
    book.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"), strict=True)
    torch.testing.assert_close(logits(book), logits(reference(SIZE)), atol=1e-5, rtol=0)
    assert book.trf_blocks[0].att.mask.bool().equal(torch.ones(CONTEXT, CONTEXT).triu(1).bool())


def test_openais_folder_has_what_the_books_loader_opens(typed, tmp_path):
    assert typed("checkpoint=ours", "format=openai", "out=out")[0] == 0
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"checkpoint", "hparams.json", "model.ckpt.index", "model.ckpt.data-00000-of-00001"} <= names
    assert tensors_of(tmp_path / "out")["model/h0/attn/c_attn/w"].shape == (1, 24, 72)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["checkpoint=ours"], 2, "out is not set"),
        (["checkpoint=ours", "out=ours"], 2, "out=ours exists already"),
        (["checkpoint=nowhere", "out=x"], 2, "checkpoint=nowhere: no such folder or file"),
        (["checkpoint=ours", "out=x", "format=gguf"], 2, "format=gguf is none of huggingface, book, openai"),
        (["checkpoint=ours", "out=x", "format=openai", "max_shard_mb=1"], 2, "does not apply"),
        (["checkpoint=ours", "out=x", "max_shard_mb=0"], 2, "at least 1"),
        (["checkpoint=ours", "out=x", "weights=gpt2"], 2, "give one of them"),
        (["checkpoint=ours", "out=x", "model=gpt2_small"], 2, "set model.emb_dim=24"),
        (["out=x"], 2, "train first"),
        (["weights=scratch", "out=x"], 2, "has learned nothing"),
        (["checkpoint=ours/config.json", "out=x"], 3, "none of the files we read"),
    ],
)
def test_bad_input_is_refused_in_three_lines_and_writes_nothing(typed, tmp_path, arguments, code, said):
    result, error = typed(*arguments)
    assert (result, said in error) == (code, True), error
    assert len(error.splitlines()) <= 3
    assert not (tmp_path / "x").exists()
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.parametrize("out", [".", "made/.."])
def test_the_folder_that_one_is_in_is_no_new_one(typed, tmp_path, monkeypatch, out):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code, error = typed("checkpoint=../ours", f"out={out}")
    assert (code, error) == (
        2,
        f"error: out={out} is the folder that this was started in: give a new folder\n",
    )
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_folder_below_a_file_cannot_be_made(typed, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, error = typed("checkpoint=ours", "out=file/below")
    assert (code, "out=file/below cannot be made" in error, len(error.splitlines())) == (2, True, 1), error


@pytest.mark.slow
def test_the_evaluation_harness_scores_an_export_as_evaluate_does(typed, tmp_path):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    assert typed("checkpoint=ours", "format=huggingface", "out=out")[0] == 0
    letters = random.Random(0)
    texts = ["".join(letters.choices("abcdefgé日", k=letters.randint(1, 4))) for _ in range(5 * 30)]
    rows = [
        {"context": context, "choices": endings, "answer": number % 4}
        for number, (context, *endings) in enumerate(zip(*[iter(texts)] * 5, strict=True))
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "endings.yaml").write_text(
        "task: endings\noutput_type: multiple_choice\nvalidation_split: train\n"
        "dataset_path: json\ndataset_kwargs: {data_files: rows.jsonl}\n"
        "doc_to_text: '{{context}}'\ndoc_to_choice: '{{choices}}'\ndoc_to_target: '{{answer}}'\n"
        "metric_list: [{metric: acc}, {metric: acc_norm}]\n"
    )
    model = ["--model", "hf", "--model_args", "pretrained=out,dtype=float32", "--device", "cpu"]
    task = ["--include_path", "tasks", "--tasks", "endings", "--output_path", "scores"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    subprocess.run(
        [sys.executable, "-m", "lm_eval", *model, *task],
        env=os.environ | offline,
        check=True,
    )
    (scores,) = (tmp_path / "scores").rglob("results*.json")
    theirs = json.loads(scores.read_text())["results"]["endings"]
    model, tokenizer = load_model(tmp_path / "out")
    questions = read_choices(str(tmp_path / "rows.jsonl"))
    ours = answer_choices([(question, score(model, tokenizer, question)) for question in questions])
    assert (ours.accuracy, ours.by_length) == pytest.approx((theirs["acc,none"], theirs["acc_norm,none"]))
    assert 0 < ours.accuracy < 1


@pytest.mark.slow
def test_peft_adapts_an_export_and_what_it_merges_opens_here(typed, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    assert typed("checkpoint=ours", "format=huggingface", "out=out")[0] == 0
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "out")
    adapted = peft.get_peft_model(
        theirs, peft.LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    )
    ids = torch.randint(0, VOCABULARY, (2, CONTEXT), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(adapted.parameters(), lr=0.1)
    for _ in range(3):
        adapted(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    merged = adapted.merge_and_unload()
    merged.eval().save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "merged")
    model, _ = load_model(tmp_path / "merged")
    torch.testing.assert_close(logits(model), logits(merged), atol=1e-4, rtol=0)
    assert not torch.allclose(logits(model), logits(reference(SIZE)), atol=1e-2)
