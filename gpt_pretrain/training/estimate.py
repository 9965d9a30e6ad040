"""What a run needs and takes, computed before it is paid for: memory by part, arithmetic, exchange, time.

Arithmetic on the model's shape alone. What it leaves out: the allocator's fragments and CUDA's own context,
some 0.5 to 1 GB a device.
"""

from dataclasses import dataclass

from gpt_pretrain.config import ModelConfig, OptimizerConfig

GIB = 2**30
UTILIZATION = 0.4  # of the peak, as well-tuned runs of this size report it; a run's own log tells its mfu
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(kw_only=True, slots=True, frozen=True)
class Device:
    """By the manufacturers' data sheets, without sparsity."""

    memory: float  # bytes
    bfloat16: float  # FLOP/s
    float32: float  # FLOP/s, TF32 where it has that
    link: float  # bytes/s to the devices of its machine, one direction
    network: float  # bytes/s of a device to other machines, where each has a link of its own
    per_node: int = 8


DEVICES = {
    "a100": Device(memory=80e9, bfloat16=312e12, float32=156e12, link=300e9, network=25e9),
    "a100-40gb": Device(memory=40e9, bfloat16=312e12, float32=156e12, link=300e9, network=25e9),
    "h100": Device(memory=80e9, bfloat16=989e12, float32=495e12, link=450e9, network=50e9),
    "h200": Device(memory=141e9, bfloat16=989e12, float32=495e12, link=450e9, network=50e9),
    "l40s": Device(memory=48e9, bfloat16=362e12, float32=183e12, link=32e9, network=25e9),
    "l4": Device(memory=24e9, bfloat16=121e12, float32=60e12, link=16e9, network=12e9),
    "rtx4090": Device(memory=24e9, bfloat16=165e12, float32=83e12, link=16e9, network=12e9),
}


@dataclass(kw_only=True, slots=True, frozen=True)
class Memory:
    """Bytes on one device."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits

    def parts(self) -> dict[str, float]:
        names = ("weights", "gradients", "optimizer", "activations", "logits")
        return {name: getattr(self, name) for name in names}


def n_params(model: ModelConfig) -> tuple[int, int]:
    """Parameters in all, and in the blocks' matrices alone."""
    width, layers = model.emb_dim, model.n_layers
    matrices = 12 * width * width * layers  # 3 + 1 of attention, 4 + 4 of the feed-forward part
    others = layers * (width * (1 + 4 + 1) + 4 * width + (3 * width if model.qkv_bias else 0))
    tables = (model.vocab_size * (1 if model.tie_weights else 2) + model.context_length) * width
    return matrices + others + tables + 2 * width, matrices


def estimate_memory(
    model: ModelConfig,
    optimizer: OptimizerConfig,
    *,
    batch_size: int,
    precision: str,
    shards: int = 1,
    micro_steps: int = 1,
    recompute: bool = False,
    on_cpu: bool = False,
    loss_in_place: bool = False,
) -> Memory:
    """Bytes on each device, at the peak of a step. `shards`: devices that FSDP spreads the model over."""
    parameters, matrices = n_params(model)
    stored = 2 if precision == "bf16-true" else 4
    per_parameter = {"sgd": stored, "muon": stored}.get(optimizer.name, 2 * stored)
    state = per_parameter * parameters
    if optimizer.name == "muon":
        state += stored * (parameters - matrices)  # AdamW's second moment, where Muon does not serve
    narrow = precision in ("bf16-mixed", "16-mixed")
    weights = stored * parameters / shards
    if narrow:  # autocast keeps narrow copies of the matrices for the length of a step
        weights += 2 * parameters / (1 if shards == 1 else model.n_layers)
    if shards > 1:  # one block at a time is whole, and the next on its way
        weights += 2 * (2 if narrow else stored) * parameters / max(model.n_layers, 1)
    tokens = batch_size * model.context_length
    return Memory(
        weights=weights,
        # Over micro-steps they add up whole on each device, in float32.
        gradients=stored * parameters / shards if shards == 1 or micro_steps == 1 else 4 * parameters,
        optimizer=state / shards,
        activations=tokens * _activations(model, precision, recompute=recompute, on_cpu=on_cpu),
        logits=tokens * model.vocab_size * _logits(precision, in_place=loss_in_place),
    )


def _activations(model: ModelConfig, precision: str, *, recompute: bool, on_cpu: bool) -> float:
    """Bytes a token that the forward pass leaves for the backward pass."""
    width, narrow = model.emb_dim, 2 if precision != "32-true" else 4
    residual = 2 if precision == "bf16-true" else 4  # autocast leaves sums and norms in float32
    # Inputs of both norms; their outputs, queries, keys, values, attention's output twice (as it comes and
    # with its heads joined), and the feed-forward part's 4 + 4.
    block = 2 * residual * width + (2 + 3 + 2 + 8) * narrow * width
    if model.drop_rate > 0:
        block += 2 * width  # masks of a byte each
        if on_cpu:  # attention with dropout keeps its matrices there
            block += model.n_heads * model.context_length * (2 * narrow + 1)
    kept = residual * width * model.n_layers + block if recompute else block * model.n_layers
    return kept + 3 * residual * width


def _logits(precision: str, *, in_place: bool) -> float:
    """Bytes a token and word: log-probabilities in float32, and their gradient before and after; or only the
    latter, written over the logits.
    """
    if in_place:
        return 4.0 if precision == "32-true" else 2.0
    return {"32-true": 12.0, "bf16-true": 10.0}.get(precision, 14.0)


def exchanged_bytes(
    parameters: int, devices: int, *, sharded: bool, precision: str, micro_steps: int = 1
) -> float:
    """Bytes that each device sends in a step. Gradients travel in its last micro-step only: there and back
    (DDP), or to where their shard lies (FSDP), whose weights travel twice in every micro-step.
    """
    share = (devices - 1) / devices
    if not sharded:
        return 2 * share * parameters * (2 if precision == "bf16-true" else 4)
    return share * parameters * (2 * micro_steps * (4 if precision == "32-true" else 2) + 4)


def step_seconds(
    device: Device,
    *,
    flops: float,
    exchanged: float,
    devices: int,
    precision: str,
    tokens_per_sec: float | None = None,
    tokens: int = 0,
) -> tuple[float, float]:
    """Seconds of arithmetic and of exchange, one device's share of a step; nothing of it at the same time.

    With the measured `tokens_per_sec` of one device, its `tokens` take that long.
    """
    peak = device.float32 if precision == "32-true" else device.bfloat16
    compute = flops / (peak * UTILIZATION) if tokens_per_sec is None else tokens / tokens_per_sec
    speed = device.link if devices <= device.per_node else device.network
    return compute, exchanged / speed
