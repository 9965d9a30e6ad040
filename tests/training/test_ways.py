"""Which way a training step takes, as its settings, the machine and the model say."""

import copy
import dataclasses
from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from gpt_pretrain.config import DecodingConfig, ModelConfig, TrainerConfig
from gpt_pretrain.decoding.loop import continue_tokens
from gpt_pretrain.errors import InfrastructureError, InputError
from gpt_pretrain.loss import head_loss, head_loss_in_place
from gpt_pretrain.model import Block, GPTModel, Linear
from gpt_pretrain.training import ways as ways_module
from gpt_pretrain.training.float8 import float8_linear
from gpt_pretrain.training.machine import Machine
from gpt_pretrain.training.ways import WORTH_COMPILING, Ways, find_ways, take
from tests.conftest import QUICK

SHAPE = {"vocab_size": 11, "context_length": 6, "emb_dim": 16, "n_heads": 2, "n_layers": 3}
TORCHS = Ways(attention="sdpa", dropout_kernel="torch", loss="torch")
IDS = torch.tensor([[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 10]])
INPUTS, TARGETS = IDS[:, :-1], IDS[:, 1:]


def machine(accelerator: str, precision: str = "32-true") -> Machine:
    return Machine(
        accelerator=accelerator, devices=1, num_nodes=1, precision=precision, strategy="one", hint=None
    )


def ways(
    accelerator: str = "cpu", drop_rate: float = 0.0, precision: str = "32-true", **given: object
) -> Ways:
    """Without the words on compiling."""
    model = ModelConfig(**SHAPE, drop_rate=drop_rate)
    found = find_ways(TrainerConfig(**given), machine(accelerator, precision), model)
    return dataclasses.replace(found, why="")


def test_auto_is_what_was_measured_to_be_faster_and_the_books_run_is_torchs():
    fast = Ways(attention="sdpa", dropout_kernel="bits", loss="in_place", pad_vocabulary=True)
    assert ways() == fast
    assert ways(drop_rate=0.1) == dataclasses.replace(fast, attention="products")
    assert ways(precision="bf16-mixed") == dataclasses.replace(fast, pad_vocabulary=False)
    assert ways("mps", 0.1) == ways("cpu", 0.1, draws="book") == TORCHS
    assert ways("gpu", 0.1) == dataclasses.replace(TORCHS, pad_vocabulary=True)
    assert ways("gpu", precision="bf16-mixed").residual == "bfloat16"


def test_what_is_said_could_be_typed():
    """And typed, it is said again."""
    for given in ({}, {"loss": "torch"}, {"pad_vocabulary": "false"}, {"compile": "true"}):
        for accelerator in ("cpu", "gpu"):
            found = ways(accelerator, 0.1, "bf16-mixed", **given)
            words = dict(word.split("=") for word in str(found).split())
            again = ways("mps", 0.1, "bf16-mixed", **words)
            assert str(again) == str(found)


def test_a_round_vocabulary_is_not_padded():
    model = ModelConfig(**{**SHAPE, "vocab_size": 128})
    assert not find_ways(TrainerConfig(pad_vocabulary="true"), machine("gpu"), model).pad_vocabulary


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
@pytest.mark.parametrize("attention", ["sdpa", "products"])
@pytest.mark.parametrize("dropout", ["torch", "bits"])
@pytest.mark.parametrize("loss", ["torch", "in_place"])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("residual", ["float32", "bfloat16"])
@pytest.mark.parametrize("fp8", [True, False])
def test_a_setting_goes_above_auto_and_reaches_every_layer(
    accelerator, attention, dropout, loss, padded, residual, fp8
):
    given = {"attention": attention, "dropout_kernel": dropout, "loss": loss, "pad_vocabulary": padded}
    given |= {"residual": residual, "fp8": fp8}
    model = GPTModel(ModelConfig(**SHAPE, drop_rate=0.1))
    names = list(model.state_dict())
    take(ways(accelerator, 0.1, "bf16-mixed", **given), model)
    assert model.head_loss.func == (head_loss_in_place if loss == "in_place" else head_loss)
    assert model.head_loss.keywords == {"multiple": 64 if padded else 1}
    drops = [model.drop_emb, *(block.drop_shortcut for block in model.blocks)]
    drops += [block.att.drop_weights for block in model.blocks]
    assert {drop.from_bits for drop in drops} == {dropout == "bits"}
    assert {block.att.by_products for block in model.blocks} == {attention == "products"}
    assert model.narrow_residual == (residual == "bfloat16")
    linear = [module for module in model.modules() if isinstance(module, Linear)]
    assert [module.trained_by for module in linear] == [float8_linear if fp8 else None] * 4 * 3
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_narrow_residual_without_autocast_is_refused(precision):
    with pytest.raises(InputError, match=r"residual=bfloat16 needs trainer\.precision=bf16-mixed"):
        ways(precision=precision, residual="bfloat16")


@pytest.mark.parametrize("narrow", [False, True])
def test_the_residual_stream_is_as_narrow_as_it_should_be(narrow):
    model, seen = GPTModel(ModelConfig(**SHAPE)), []
    take(dataclasses.replace(TORCHS, residual="bfloat16" if narrow else "float32"), model)
    for block in model.blocks:
        block.register_forward_hook(lambda *call: seen.append((call[1][0].dtype, call[2].dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        model(INPUTS, targets=TARGETS).backward()
    assert set(seen) == {(torch.bfloat16 if narrow else torch.float32,) * 2}
    seen.clear()
    model(INPUTS)
    assert set(seen) == {(torch.float32,) * 2}


@pytest.mark.parametrize(
    ("accelerator", "flops", "lacking", "compiled", "why"),
    [
        ("cpu", 1e30, None, False, "no gain on a CPU"),
        ("mps", 1e30, None, False, "never tried here"),
        ("gpu", 0.9 * WORTH_COMPILING, None, False, "the run is too short for it"),
        ("gpu", 1.1 * WORTH_COMPILING, "Triton", False, "it would need Triton"),
        ("gpu", 1.1 * WORTH_COMPILING, None, True, "the run is long enough"),
    ],
)
def test_compiling_is_worth_it_in_long_runs_on_a_gpu_that_has_what_it_needs(
    monkeypatch, accelerator, flops, lacking, compiled, why
):
    monkeypatch.setattr(ways_module, "lacks_for_compiling", lambda accelerator: lacking)
    model = ModelConfig(**SHAPE)
    for wanted, expected in (("auto", (compiled, why)), ("true", (True, "")), ("false", (False, ""))):
        found = find_ways(TrainerConfig(compile=wanted), machine(accelerator), model, flops)
        assert (found.compile, found.why) == expected
        taken = f"compile={str(found.compile).lower()}"
        assert str(found).endswith(taken + (f" ({why})" if wanted == "auto" else ""))


@pytest.mark.parametrize("typed_in", [True, "True", "true"])
def test_a_switch_takes_what_yaml_makes_of_true(typed_in):
    assert TrainerConfig(compile=typed_in).compile == "true"


@pytest.mark.parametrize("loss", ["torch", "in_place"])
@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_blocks_and_loss_are_one_graph_each_and_the_same_to_the_eye(monkeypatch, loss, recompute):
    """Blocks share theirs; evaluation, generation and a copy of the model make no new one."""
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(ways_module.torch, "compile", partial(torch.compile, backend=counter))
    model = GPTModel(ModelConfig(**SHAPE))
    other = copy.deepcopy(model)
    take(dataclasses.replace(TORCHS, loss=loss, pad_vocabulary=True), other)
    take(dataclasses.replace(TORCHS, loss=loss, pad_vocabulary=True, compile=True), model)
    for block in model.blocks:
        block.recompute = recompute
    assert list(model.state_dict()) == list(other.state_dict())
    for each in (model, other):
        each(INPUTS, targets=TARGETS).backward()
    for (name, mine), (_, theirs) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name)
    graphs = 1 + (loss == "torch")
    assert counter.frame_count == graphs
    for n_tokens in (1, 2, 3):
        model.eval()(INPUTS[:, :n_tokens])
        continue_tokens(model, INPUTS[:1, :n_tokens], DecodingConfig(max_new_tokens=2))
    copied = copy.deepcopy(model).train()
    with torch.no_grad():
        copied.blocks[0].ff.expand.weight.zero_()
    assert copied(INPUTS, targets=TARGETS) != model.train()(INPUTS, targets=TARGETS)
    assert counter.frame_count == graphs


@pytest.mark.parametrize("fp8", [False, True])
def test_a_gpus_ways_are_one_graph_too_and_learn(monkeypatch, fp8):
    """All that auto takes on a GPU, in bfloat16 and with dropout, by the same compiler for a CPU."""
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(ways_module.torch, "compile", partial(torch.compile, backend=counter))
    torch.manual_seed(0)
    model = GPTModel(ModelConfig(**{**SHAPE, "context_length": 16}, drop_rate=0.1))
    on_gpu = ways("gpu", 0.1, "bf16-mixed", compile="true", fp8=fp8)
    assert (on_gpu.compile, on_gpu.pad_vocabulary, on_gpu.residual) == (True, True, "bfloat16")
    take(on_gpu, model)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    ids = torch.arange(17).remainder(11)[None]
    for _ in range(120):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(ids[:, :-1], targets=ids[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert counter.frame_count == 2
    assert losses[0] == pytest.approx(2.4, abs=0.3)
    assert losses[-1] < 0.5
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_compiler_that_fails_is_one_line(monkeypatch):
    def broken(graph, inputs):
        raise OSError("no such compiler\nand more")

    monkeypatch.setattr(ways_module.torch, "compile", partial(torch.compile, backend=broken))
    model = GPTModel(ModelConfig(**SHAPE))
    take(dataclasses.replace(TORCHS, compile=True), model)
    with pytest.raises(InfrastructureError, match=r"no such compiler.*set trainer\.compile=false$") as told:
        model(INPUTS, targets=TARGETS)
    assert "\n" not in str(told.value)
    assert Block.step is not model.blocks[0].trained_by


def test_bits_and_the_books_draws_are_refused_together(typed, tmp_path):
    code, said = typed("train", *QUICK, "trainer.draws=book", "trainer.dropout_kernel=bits")
    assert (code, "trainer.dropout_kernel=auto" in said, said.count("\n") <= 3) == (2, True, True), said
    assert not list(tmp_path.iterdir())
