"""The LightningModule: the GPT model and its cross-entropy step."""

import dataclasses
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.optim import Optimizer

from gpt_pretrain.config import OptimizerConfig, ScheduleConfig
from gpt_pretrain.errors import DivergedError
from gpt_pretrain.launch.signals import received
from gpt_pretrain.loss import IGNORED, bits_per_byte, perplexity, summed_token_loss
from gpt_pretrain.model import GPTModel
from gpt_pretrain.training.datamodule import Batch, GPTDataModule
from gpt_pretrain.training.divergence import Divergence
from gpt_pretrain.training.draws import Draws
from gpt_pretrain.training.optim import build_optimizer, parameter_names, rates_by_group
from gpt_pretrain.training.plan import Plan
from gpt_pretrain.training.schedule import learning_rate
from gpt_pretrain.training.shards import is_sharded, local, shard, whole


class GPTModule(L.LightningModule):
    """Trains `model` as `plan` lays out.

    Every draw of a training step comes from `draws`, so that evaluating, sampling, stopping or resuming
    changes no digit of it.
    """

    def __init__(
        self,
        model: GPTModel,
        *,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        plan: Plan,
        draws: Draws,
        grad_clip: float | None,
        byte_lengths: Tensor,
        grad_clip_from: int = 0,
        divergence: Divergence | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer_config, self.schedule_config = optimizer, schedule
        self.plan, self.draws = plan, draws
        self.grad_clip, self.grad_clip_from = grad_clip, grad_clip_from
        self.byte_lengths = byte_lengths  # of UTF-8 that each id stands for: (vocab_size,)
        self.measured_elsewhere = False  # Metrics says so; under a trainer of the user's own nobody does
        self.divergence = divergence or Divergence("stop", 1, None)
        self.signal_number = 0  # that the ranks have agreed on in the step just taken
        self.evaluation_cut = False  # by a signal: its losses are of a part of the text
        self.step_losses: deque[Tensor] = deque(maxlen=plan.accumulate)  # of this step's micro-steps
        self.train_losses: list[Tensor] = []  # of the micro-steps since the last report, left on their device
        self.grad_norm: Tensor | None = None  # of the step just taken; None where it was skipped
        self.gradients_ready: Callable[[GPTModule], None] | None = None  # asked before they are clipped
        self.evaluated: list[Tensor] = []  # of each evaluated split: summed loss, tokens and bytes
        self.validated: dict[str, float] = {}  # by the newest evaluation

    def forward(self, token_ids: Tensor) -> Tensor:
        return self.model(token_ids)

    def configure_model(self) -> None:
        mesh = self.device_mesh  # of a strategy that shards
        if mesh is not None and not is_sharded(self.model):
            in_bfloat16 = self.trainer.precision == "bf16-mixed"
            shard(self.model, mesh["data_parallel"], in_bfloat16=in_bfloat16)

    def on_fit_start(self) -> None:
        # A process group left over from an earlier run would make every rank see part of the batches only.
        assert self.trainer.world_size == self.plan.world_size
        assert self.trainer.accumulate_grad_batches == self.plan.accumulate

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        accumulate = self.plan.accumulate
        micro_step = self.trainer.global_step * accumulate + batch_idx % accumulate  # of the whole run
        with self.draws.forward(micro_step, self.global_rank):
            loss: Tensor = self.model(batch["inputs"], targets=batch["targets"])
        self.step_losses.append(loss.detach())
        if self.measured_elsewhere:
            self.train_losses.append(loss.detach())
        else:
            self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.evaluated = []
        self.byte_lengths = self.byte_lengths.to(self.device)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        targets = batch["targets"]
        total, n_tokens = summed_token_loss(self.model(batch["inputs"]), targets)
        n_bytes = (self.byte_lengths[targets.clamp(min=0)] * (targets != IGNORED)).sum()
        while len(self.evaluated) <= dataloader_idx:
            self.evaluated.append(exact(torch.zeros(3, device=self.device)))
        # of one batch, whose tokens and bytes float32 counts
        counts = [n_tokens.to(total.dtype), n_bytes.to(total.dtype)]
        self.evaluated[dataloader_idx] += exact(torch.stack([total, *counts]))

    def on_validation_epoch_end(self) -> None:
        if self.evaluation_cut:
            return
        summed = [self._over_ranks(sums) for sums in self.evaluated]
        losses = [float(total / n_tokens) for total, n_tokens, _ in summed]
        for loss in losses:
            if not math.isfinite(loss):
                raise self.diverged(f"the loss in evaluation is {loss}")
        _, n_tokens, n_bytes = summed[0]
        self.validated = {
            "val/loss": losses[0],
            "val/perplexity": perplexity(losses[0]),
            "val/bits_per_byte": bits_per_byte(losses[0], float(n_bytes / n_tokens)),
        }
        if len(losses) > 1:
            self.validated["train/eval_loss"] = losses[1]
        # for callbacks of the user's own, such as EarlyStopping
        self.log("val/loss", losses[0], logger=not self.measured_elsewhere)

    def report(self) -> dict[str, float]:
        """Mean training loss since the last report, gradient norm, learning rate. Every rank must call it."""
        losses = torch.stack(self.train_losses) if self.train_losses else torch.zeros(0, device=self.device)
        losses = exact(losses)
        total, count = self._over_ranks(torch.stack([losses.sum(), torch.ones_like(losses).sum()]))
        loss = float(total / count)
        self.train_losses.clear()
        # Without a loss where every step since the last report was skipped, and the newest one's has no norm.
        trained = {} if math.isnan(loss) else {"train/loss": loss, "train/perplexity": perplexity(loss)}
        norm = {} if self.grad_norm is None else {"grad_norm": float(self.grad_norm)}
        rates = {f"lr/{group}": rate for group, rate in rates_by_group(self.trainer.optimizers[0]).items()}
        return trained | {"lr": self.current_lr(), **norm, **rates}

    def is_finite(self) -> bool:
        """Whether all weights are numbers. Every rank must ask where they are sharded: each sees its part."""
        finite = all(bool(local(parameter).isfinite().all()) for parameter in self.model.parameters())
        if not is_sharded(self.model):
            return finite
        parts = torch.tensor(float(not finite), device=self.device)
        return not torch.as_tensor(self.trainer.strategy.reduce(parts, reduce_op="sum")).item()

    def diverged(self, finding: str, step: int | None = None, samples: str = "") -> DivergedError:
        """What to raise on finding numbers that are none, with the remedy."""
        clip = "" if self.grad_clip else " or clip with trainer.grad_clip=1.0"
        step = self.trainer.global_step if step is None else step
        return DivergedError(
            f"{finding} at step {step}{samples and f' ({samples})'}: "
            f"lower optimizer.lr={self.optimizer_config.lr:g}, warm up for longer{clip}"
        )

    def current_lr(self) -> float:
        """Learning rate of the step just taken."""
        return self._lr_at(self.trainer.global_step - 1)

    def configure_optimizers(self) -> Optimizer:
        return build_optimizer(self.model, self.optimizer_config)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["plan"] = dataclasses.asdict(self.plan)
        checkpoint["draws"] = self.draws.state_dict()
        checkpoint["divergence"] = self.divergence.state_dict()
        checkpoint["train_losses"] = self._gathered([float(loss) for loss in self.train_losses])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A resumed run has the checkpoint's optimizer state, and the settings of its command line."""
        self.draws.load_state_dict(checkpoint.get("draws", {}))  # an earlier version stored none
        if "divergence" in checkpoint:
            self.divergence.load_state_dict(checkpoint["divergence"])
        self.train_losses = [torch.tensor(loss, device=self.device) for loss in self._own_losses(checkpoint)]
        (stored,) = checkpoint["optimizer_states"]
        groups = build_optimizer(self.model, self.optimizer_config).state_dict()["param_groups"]
        names, places = parameter_names(stored["param_groups"]), parameter_names(groups)
        index = {name: place for place, name in places.items()}
        state = {index[names[place]]: values for place, values in stored["state"].items()}
        checkpoint["optimizer_states"] = [{"state": state, "param_groups": groups}]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # A function of the step and the settings alone; torch's schedulers would keep the old run's peak.
        for group in optimizer.param_groups:
            group["lr"] = self._lr_at(self.trainer.global_step)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        # Lightning lets go of gradients only after the next forward pass, which could do with their memory.
        self.trainer.optimizers[0].zero_grad(set_to_none=True)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        # Lightning's own clipping refuses fused optimizers under mixed precision, and does not tell the norm.
        # Such an optimizer undoes float16's loss scaling in its step, which is after the clipping: too late.
        precision = self.trainer.precision_plugin
        if isinstance(precision, MixedPrecision) and precision.scaler and optimizer.defaults.get("fused"):
            precision.scaler.unscale_(optimizer)
        if self.gradients_ready is not None:
            self.gradients_ready(self)
        is_due = self.trainer.global_step >= self.grad_clip_from
        limit = self.grad_clip if self.grad_clip is not None and is_due else math.inf
        norm = whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        scaled = isinstance(precision, MixedPrecision) and precision.scaler is not None
        self._check_step(optimizer, norm, trusted=scaled)  # float16's scaling looks after gradients itself

    def _check_step(self, optimizer: Optimizer, norm: Tensor, *, trusted: bool) -> None:
        """Before the optimizer moves, and alike on every rank: is this step sound, and has a signal come?"""
        losses = torch.stack(list(self.step_losses))
        # The norm is the same everywhere, since gradients are averaged first; a loss is a rank's own.
        found = torch.stack([(~losses.isfinite()).any().to(norm.dtype), norm])
        signal_number = received() or 0
        if self.trainer.world_size > 1:
            mine = torch.stack([found[0], found.new_tensor(signal_number)])
            mine = torch.as_tensor(self.trainer.strategy.reduce(mine, reduce_op="max"))
            found[0] = mine[0]
            signal_number = int(mine[1])
        self.signal_number = signal_number
        broken, value = found.tolist()  # the one place in a step that waits for a GPU
        finding = self.divergence.finding(not broken, None if trusted else value)
        self.grad_norm = norm if finding is None else None
        if finding is None:
            return
        step = self.trainer.global_step + 1
        samples = f"the batch at {self._samples(step)}"
        self.divergence.answer(step, finding, self.diverged(finding, step, samples), samples)
        optimizer.zero_grad(set_to_none=True)  # no gradient moves nothing, and is no step of a moment
        del self.train_losses[-self.plan.accumulate :]

    def _samples(self, step: int) -> str:
        """Which windows this rank's part of a step's batch is."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        starts = data.starts(step) if isinstance(data, GPTDataModule) else []
        shown = ", ".join(map(str, starts[:8])) + (", ..." if len(starts) > 8 else "")
        return f"token {shown} of the training text"

    def _lr_at(self, step: int) -> float:
        return learning_rate(
            step, config=self.schedule_config, peak=self.optimizer_config.lr, total_steps=self.plan.steps
        )

    def _gathered(self, mine: list[float]) -> list[list[float]]:
        """A list of each rank. Every rank must call it."""
        if self.trainer.world_size == 1:
            return [mine]
        lists: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(lists, mine)
        return lists

    def _own_losses(self, checkpoint: dict[str, Any]) -> list[float]:
        """This rank's losses since the last report; those of another number of ranks are the first's."""
        lists = checkpoint.get("train_losses", [[]])
        if len(lists) != self.trainer.world_size:
            lists = [[loss for losses in lists for loss in losses]] + [[]] * self.trainer.world_size
        return list(lists[self.global_rank])

    def _over_ranks(self, sums: Tensor) -> Tensor:
        if self.trainer.world_size > 1:
            sums = torch.as_tensor(self.trainer.strategy.reduce(sums, reduce_op="sum"))
        return sums


def exact(values: Tensor) -> Tensor:
    """float64, for sums over many: on the CPU where the device has none, as Apple's GPU."""
    return (values.cpu() if values.device.type == "mps" else values).double()
