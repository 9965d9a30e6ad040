import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import AdamW

from gpt_pretrain.config import MEMBERS, AdamWConfig, ModelConfig, MuonConfig, OptimizerConfig
from gpt_pretrain.model import GPTModel
from gpt_pretrain.training.muon import Muon, orthogonal
from gpt_pretrain.training.optim import Joined, build_optimizer, rates_by_group

SHAPE = ModelConfig(vocab_size=13, context_length=6, emb_dim=8, n_heads=2, n_layers=1)
MUON = {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.95}
ALL = [member() for member in MEMBERS[OptimizerConfig].values()]


def model_with_gradients() -> GPTModel:
    torch.manual_seed(0)
    model = GPTModel(SHAPE)
    model(torch.tensor([[1, 2, 3], [4, 5, 6]])).square().mean().backward()
    return model


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.name)
def test_every_parameter_is_in_exactly_one_group_and_moves(config):
    model = model_with_gradients()
    optimizer = build_optimizer(model, config)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    before = [p.clone() for p in model.parameters()]
    optimizer.step()
    moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    has_gradient = [bool(p.grad.abs().sum() > 0) for p in model.parameters()]
    assert all(m for m, g in zip(moved, has_gradient, strict=True) if g)


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.name)
def test_only_matrices_decay_unless_all_shall(config):
    for decay, exempt in (("matrices", True), ("all", False)):
        config = replace(config, decay=decay, weight_decay=0.5)
        for group in build_optimizer(GPTModel(SHAPE), config).param_groups:
            for parameter in group["params"]:
                assert (group["weight_decay"] == 0) == (parameter.ndim < 2 and exempt)


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    optimizer = build_optimizer(GPTModel(SHAPE), MuonConfig())
    muon, adamw = optimizer.optimizers
    assert isinstance(muon, Muon)
    assert isinstance(adamw, AdamW)
    names = [name for group in muon.param_groups for name in group["param_names"]]
    assert names == [
        "blocks.0.att.qkv.weight",
        "blocks.0.att.out_proj.weight",
        "blocks.0.ff.expand.weight",
        "blocks.0.ff.contract.weight",
    ]


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 32)], ids=str)
def test_an_orthogonal_matrix_has_the_singular_vectors_of_the_first_and_values_about_one(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert values.min() > 0.3  # smaller ones than these random ones have would need more steps
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    inside = left.mT @ orthogonal(matrices) @ right.mT
    assert (inside - torch.diag_embed(inside.diagonal(dim1=-2, dim2=-1))).abs().max() < 1e-4


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
    decades=st.floats(0, 8),
    size=st.sampled_from([1e-9, 1.0, 1e9]),
    seed=st.integers(0, 99),
)
def test_an_orthogonal_matrix_is_that_of_newton_s_and_schulz_s_steps_in_float64(shape, decades, size, seed):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    values = size * 10 ** -torch.linspace(0, decades, values.shape[-1], dtype=torch.float64)
    matrices = (left * values @ right).float().double()
    x = matrices / matrices.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    assert (orthogonal(matrices.float()) - x).abs().max() < 1e-4


def test_muon_steps_as_torch_s_own_does_to_what_its_bfloat16_can_tell():
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 8), (24, 8), (8, 32), (24, 8))]
    theirs = copy.deepcopy(ours)
    optimizers = [
        Muon(ours, **MUON),
        torch.optim.Muon(theirs, **MUON, adjust_lr_fn="match_rms_adamw"),
    ]
    begun = [parameter.clone() for parameter in ours]
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for mine, other, start in zip(ours, theirs, begun, strict=True):
        assert (mine - other).abs().max() < 0.03 * (other - start).abs().max()
    kept = [
        optimizer.state[parameters[1]]["momentum_buffer"]
        for optimizer, parameters in zip(optimizers, (ours, theirs), strict=True)
    ]
    torch.testing.assert_close(*kept)


def test_joined_optimizers_do_what_each_would_alone_and_follow_the_learning_rate():
    joined_parameters = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(3))]
    alone_parameters = copy.deepcopy(joined_parameters)
    joined = Joined([Muon(joined_parameters[:1], **MUON), AdamW(joined_parameters[1:], lr=0.1)])
    alone = [Muon(alone_parameters[:1], **MUON), AdamW(alone_parameters[1:], lr=0.1)]
    for step in range(3):
        for optimizer in (joined, *alone):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (step + 1)
        for parameters in (joined_parameters, alone_parameters):
            for parameter in parameters:
                parameter.grad = torch.arange(1.0, parameter.numel() + 1).reshape(parameter.shape)
        joined.step()
        for optimizer in alone:
            optimizer.step()
    for ours, theirs in zip(joined_parameters, alone_parameters, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.name)
def test_a_restored_optimizer_takes_the_same_next_step(config):
    model = model_with_gradients()
    optimizer = build_optimizer(model, config)
    optimizer.step()
    twin = copy.deepcopy(model)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        theirs.grad = ours.grad.clone()
    restored = build_optimizer(twin, config)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.step()
    restored.step()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_learning_rates_are_told_by_group_where_they_differ():
    model = nn.Linear(2, 2)
    optimizer = build_optimizer(model, AdamWConfig())
    assert rates_by_group(optimizer) == {}
    optimizer.param_groups[0]["lr"] = 0.5
    assert rates_by_group(optimizer) == {"decayed": 0.5, "not decayed": 1e-3}


def test_the_groups_of_muon_are_told_apart():
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(2, 2)]), "head": nn.Linear(2, 2)})
    optimizer = build_optimizer(model, MuonConfig())
    for rate, group in enumerate(optimizer.param_groups):
        group["lr"] = rate
    assert rates_by_group(optimizer) == {"muon": 0, "decayed": 1, "not decayed": 2}
