"""The LightningModule under a trainer of Lightning's own."""

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader

from gpt_pretrain.config import AdamWConfig, ConstantConfig, ModelConfig, MuonConfig, SGDConfig
from gpt_pretrain.model import GPTModel
from gpt_pretrain.training.draws import StepDraws, _draw_seed
from gpt_pretrain.training.module import GPTModule
from gpt_pretrain.training.plan import Budget, Plan

SHAPE = ModelConfig(vocab_size=13, context_length=6, emb_dim=8, n_heads=2, n_layers=1)
PLAN = Plan(
    world_size=1,
    n_windows=2,
    stride=6,
    batch_tokens=12,
    accumulate=1,
    steps=1,
    steps_per_epoch=1,
    budget=Budget("trainer.max_steps", 1),
    eval_every=1,
    sample_every=1,
    checkpoint_every=None,
)


def gradients_of_one_step(optimizer, plugins, clip_from=0) -> tuple[float, list[torch.Tensor]]:
    """The norm that is logged, and what the optimizer was given."""
    torch.manual_seed(0)
    module = GPTModule(
        GPTModel(SHAPE),
        optimizer=optimizer,
        schedule=ConstantConfig(),
        plan=PLAN,
        draws=StepDraws(1),
        grad_clip=0.5,
        grad_clip_from=clip_from,
        byte_lengths=torch.ones(SHAPE.vocab_size, dtype=torch.long),
    )
    batch = {"inputs": torch.arange(12).view(2, 6), "targets": torch.arange(1, 13).view(2, 6)}
    given: list[torch.Tensor] = []

    class Look(L.Callback):
        def on_fit_start(self, trainer, module):
            trainer.optimizers[0].register_step_post_hook(
                lambda *call: given.extend(parameter.grad.clone() for parameter in module.parameters())
            )

    trainer = L.Trainer(
        accelerator="cpu",
        plugins=plugins,
        callbacks=[Look()],
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader([batch], batch_size=None))
    assert all(parameter.grad is None for parameter in module.parameters())  # their memory is free again
    assert len(given) == len(list(module.parameters()))
    return float(module.grad_norm), given


@pytest.mark.parametrize("optimizer", [AdamWConfig(), MuonConfig(), SGDConfig()], ids=lambda c: c.name)
def test_float16_clips_the_gradient_and_not_its_scaled_up_copy(optimizer):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    norm, gradients = gradients_of_one_step(optimizer, [MixedPrecision("16-mixed", "cpu", scaler)])
    expected_norm, expected = gradients_of_one_step(optimizer, [])
    assert norm == pytest.approx(expected_norm, rel=1e-2)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=1e-3)


def test_steps_before_the_first_that_is_clipped_keep_their_gradient():
    for clip_from, expected in ((0, 0.5), (1, None)):
        norm, gradients = gradients_of_one_step(SGDConfig(), [], clip_from)
        assert norm > 0.5
        length = torch.stack([gradient.norm() for gradient in gradients]).norm()
        assert float(length) == pytest.approx(expected or norm, rel=1e-5)


def test_every_micro_step_of_every_rank_draws_with_a_seed_of_its_own():
    places = [(seed, step, rank) for seed in (1, 12, 2**63 - 1) for step in range(300) for rank in range(8)]
    seeds = {_draw_seed(*place) for place in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
