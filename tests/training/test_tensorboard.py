"""What TensorBoard is given: read back by its own reader, and asked of its own server."""

import json
import math
import shutil
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.errors import DivergedError
from gpt_pretrain.training.columns import Words, columns
from gpt_pretrain.training.tensorboard import EventFiles, events
from tests.training.test_train import rows, run, run_to

SUCCESS, FAILURE = 1, 2  # as TensorBoard numbers them


def read(folder):
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0})
    found.Reload()
    return found


def curve(folder, tag):
    points = [(event.step, event.value) for event in read(folder).Scalars(tag)]
    assert [step for step, _ in points] == sorted(step for step, _ in points)
    return dict(points)


def hparams(folder, of):
    content = read(folder).SummaryMetadata(f"_hparams_/session_{of}_info").plugin_data.content
    return getattr(HParamsPluginData.FromString(content), f"session_{of}_info")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched") / "13-14-28"
    settings = ["trainer.max_steps=6", "trainer.eval_every=3", "trainer.checkpoint_every=2"]
    run(
        folder,
        *settings,
        "logger.pictures=true",
        "trainer.keep_last=9",
        "trainer.eval_train=true",
        "logger.layers=true",
    )
    return folder


def test_training_and_validation_loss_stand_on_the_first_chart(trained):
    both = {name: read(trained / name).Tags()["scalars"] for name in ("", "val", "train_without_dropout")}
    first = min(both[""])
    assert first in ("1 loss/over steps", "(final)/best_val_loss")
    assert all("1 loss/over steps" in tags for tags in both.values())
    written = rows(trained)
    for name, key in (("", "train/loss"), ("val", "val/loss"), ("train_without_dropout", "train/eval_loss")):
        expected = {int(row["step"]): float(row[key]) for row in written if row[key]}
        assert curve(trained / name, "1 loss/over steps") == pytest.approx(expected)


def test_losses_run_over_steps_tokens_and_time(trained):
    written = [row for row in rows(trained) if row["val/loss"]]
    for axis, key in (("over tokens", "tokens_seen"), ("over time (s)", "seconds")):
        for group, value in (("1 loss", "val/loss"), ("3 bits per byte", "val/bits_per_byte")):
            expected = {math.floor(float(row[key])): float(row[value]) for row in written}
            assert curve(trained / "val", f"{group}/{axis}") == pytest.approx(expected)


def test_nothing_measured_is_a_chart_that_nobody_asked_for(trained):
    tags = [tag for name in ("", "val") for tag in read(trained / name).Tags()["scalars"]]
    assert not [tag for tag in tags if any(junk in tag for junk in ("epoch", "tokens_seen", "hp_metric"))]
    assert {tag.split("/")[0][:2] for tag in tags} == {
        *("1 ", "2 ", "3 ", "4 ", "5 ", "6 ", "7 ", "8 "),
        "(f",
    }


def test_samples_stand_as_they_are_with_their_prompt(trained):
    from tensorboard.plugin_util import markdown_to_safe_html

    samples = [event.tensor_proto.string_val[0] for event in read(trained).Tensors("1 sample/text_summary")]
    assert len(samples) == 3  # before training, and at each evaluation
    assert all(sample.startswith(b"    The statement") for sample in samples)
    files = EventFiles(trained.parent / "other")
    odd = "def f():\n    return *1*\n\n\n<script>\t# `x` | y\n```\n1. end \x1b[1m"
    files.log_text("odd", odd, 0)
    files.finalize("success")
    text = read(trained.parent / "other").Tensors("odd/text_summary")[0].tensor_proto.string_val[0].decode()
    shown = markdown_to_safe_html(text)
    assert shown.startswith("<pre><code>")
    assert shown.endswith("</code></pre>")
    inner = shown.removeprefix("<pre><code>").removesuffix("\n</code></pre>")
    assert inner == ("def f():\n    return *1*\n\n\n&lt;script&gt;    # `x` | y\n```\n1. end \\x1b[1m")


def test_settings_and_environment_are_texts_and_the_figures_pictures(trained):
    texts = read(trained).Tags()["tensors"]
    assert {"2 settings/text_summary", "3 environment/text_summary"} <= set(texts)
    assert set(read(trained).Tags()["images"]) == {"9 pictures/loss", "9 pictures/next token"}
    (picture,) = read(trained).Images("9 pictures/loss")
    assert picture.encoded_image_string == (trained / "loss.png").read_bytes()
    assert (picture.width, picture.height) == (1050, 630)


def test_a_run_is_named_as_its_folder_and_is_one_row(trained, tmp_path):
    name = "day/time"
    shutil.copytree(trained, tmp_path / name)
    found = EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    found.Reload()
    ours = {run for run in found.Runs() if run.startswith(name)}
    assert ours == {name, f"{name}/val", f"{name}/train_without_dropout"}
    assert len(found.PluginRunToTagToContent("hparams").keys() & ours) == 1


def test_the_row_has_the_final_and_the_best_loss_and_how_it_ended(trained, tmp_path):
    summary = json.loads((trained / "summary.json").read_text())
    for key in ("val_loss", "best_val_loss"):
        assert curve(trained, f"(final)/{key}") == {6: pytest.approx(summary[key])}
    assert hparams(trained, "end").status == SUCCESS
    diverging = ["optimizer=sgd", "optimizer.lr=1e30", "trainer.grad_clip=null", "trainer.max_steps=40"]
    with pytest.raises(DivergedError):
        run(tmp_path, *diverging)
    assert hparams(tmp_path, "end").status == FAILURE


def test_a_row_begins_with_what_was_typed():
    words = ["model=tiny", "optimizer=muon", "trainer.log_every=3", "data.max_files=null"]
    shown = columns(compose("train", TrainConfig, words[:3]), Words(others=tuple(words)))
    assert min(shown) == "(typed)"
    assert shown["(typed)"] == "model=tiny optimizer=muon trainer.log_every=3 data.max_files=null"
    assert (shown["trainer.log_every"], shown["optimizer.name"], shown["model.emb_dim"]) == (3, "muon", 64)
    assert "trainer.eval_train" not in shown  # as always, and not typed
    wide = columns(
        compose("train", TrainConfig, ["experiment=overfit"]), Words(others=("experiment=overfit",))
    )
    assert set(wide) > {"(typed)", "trainer.max_steps"}
    assert not [value for value in wide.values() if not isinstance(value, bool | int | float | str)]


def test_a_resumed_run_goes_on_with_its_curves_and_its_row(trained, tmp_path):
    folder = run_to(4, trained, tmp_path / "run")
    again = ["trainer.max_steps=8", "trainer.eval_every=3", "trainer.eval_train=true", "logger.layers=true"]
    run(folder, *again, f"resume='{folder}'")
    steps = [int(row["step"]) for row in rows(folder) if row["val/loss"]]
    assert steps == [0, 3, 6, 8]
    assert list(curve(folder / "val", "1 loss/over steps")) == steps
    assert list(curve(folder / "val", "1 loss/over tokens")) == [step * 128 for step in steps]
    assert list(curve(folder, "(final)/val_loss")) == [8]
    assert len(list(folder.glob("*.hparams"))) == 1
    assert hparams(folder, "end").status == SUCCESS


@pytest.mark.parametrize("behind", [3600, 0])
def test_a_clock_that_went_back_takes_nothing_from_the_curves(tmp_path, monkeypatch, behind):
    logger = EventFiles(tmp_path)
    for step in range(1, 5):
        logger.log_metrics({"val/loss": float(step), "train/loss": 1.0}, step)
    logger.finalize("success")
    earlier = max(int(file.name.split(".")[3]) for file in tmp_path.rglob("events*"))
    monkeypatch.setattr(time, "time", lambda: earlier - behind)
    for due in (4, 6):
        logger = EventFiles(tmp_path, due=due)
        for step in (due, due + 1):
            logger.log_metrics({"val/loss": 10.0 + step, "train/loss": 1.0}, step)
        logger.finalize("success")
    expected = {1: 1, 2: 2, 3: 3, 4: 14, 5: 15, 6: 16, 7: 17}
    assert curve(tmp_path / "val", "1 loss/over steps") == expected
    assert list(curve(tmp_path, "1 loss/over steps")) == list(expected)
    logger.end({}, {"val_loss": 17.0}, step=7, finished=True)
    assert curve(tmp_path, "(final)/val_loss") == {7: 17}
    assert len(list(tmp_path.glob("events*"))) == 4


def test_what_an_earlier_run_left_in_a_folder_is_no_part_of_one_that_begins_there(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    for name in (".saved", "summary.json"):  # which say that it had checkpoints: it would not begin anew
        (tmp_path / "run" / name).unlink()
    run(tmp_path / "run", "trainer.max_steps=1")
    assert list(curve(tmp_path / "run" / "val", "1 loss/over steps")) == [0, 1]


def test_norms_by_layer_are_those_of_the_weights(trained):
    import torch
    from safetensors.torch import load_file

    before, after = (load_file(trained / f"checkpoints/step-0000000{n}/model.safetensors") for n in (4, 6))
    last = rows(trained)[-1]
    embeddings = [state["transformer.wte.weight"].double() for state in (before, after)]
    assert float(last["weight_norm/tok_emb"]) == pytest.approx(torch.linalg.norm(embeddings[1]).item(), 1e-5)
    layers = {key.split("/")[1] for key in last if key.startswith("update_ratio/")}
    assert layers == {"tok_emb", "pos_emb", "block 00", "block 01", "final_norm"}
    total = sum(float(last[f"grad_norm/{layer}"]) ** 2 for layer in layers)
    assert math.sqrt(total) == pytest.approx(float(last["grad_norm"]), rel=1e-4)
    # AdamW moves each weight by lr at most (and by its decay): two orders below the weights
    assert all(0 < float(last[f"update_ratio/{layer}"]) < 0.05 for layer in layers)


def test_measuring_layers_changes_no_digit(trained, tmp_path):
    run(tmp_path, "trainer.max_steps=6", "trainer.eval_every=3")
    assert [row["val/loss"] for row in rows(tmp_path)] == [row["val/loss"] for row in rows(trained)]


def test_a_row_of_metrics_is_one_event_an_axis():
    row = {"step": 7.0, "tokens_seen": 700.0, "seconds": 3.9, "train/loss": 2.0, "lr": 0.1, "epoch": 1.0}
    row |= {"val/loss": 3.0, "ms/forward": 5.0, "tokens_per_sec": 9.0}
    assert sorted(events(row)) == [
        ("", 3, {"1 loss/over time (s)": 2.0}),
        (
            "",
            7,
            {
                "1 loss/over steps": 2.0,
                "4 learning rate/all": 0.1,
                "8 speed/milliseconds of a step/forward": 5.0,
                "8 speed/tokens per second": 9.0,
            },
        ),
        ("", 700, {"1 loss/over tokens": 2.0}),
        ("val", 3, {"1 loss/over time (s)": 3.0}),
        ("val", 7, {"1 loss/over steps": 3.0}),
        ("val", 700, {"1 loss/over tokens": 3.0}),
    ]
