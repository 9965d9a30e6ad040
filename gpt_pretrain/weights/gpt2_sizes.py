"""The sizes of GPT-2 that OpenAI trained: where each is published, and what is certain of its files.

Their whole shapes are in conf/model, which a test compares with this table.
"""

from dataclasses import dataclass, field

from gpt_pretrain.weights.download import Expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One of the four that OpenAI published."""

    option: str  # of conf/model
    n_heads: int
    repository: str  # on the Hugging Face hub
    folder: str  # at OpenAI's address
    known: dict[str, Expected] = field(default_factory=dict)  # beside what a server declares


# By width and depth. Of the small model's files both are published in many places; for the rest the server's
# word is taken, and weights.sha256 can add yours.
SIZES = {
    (768, 12): Size(
        option="gpt2_small",
        n_heads=12,
        repository="openai-community/gpt2",
        folder="124M",
        known={
            "model.safetensors": Expected(
                548_105_171, "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"
            ),
            "model.ckpt.data-00000-of-00001": Expected(497_759_232),
        },
    ),
    (1024, 24): Size(
        option="gpt2_medium", n_heads=16, repository="openai-community/gpt2-medium", folder="355M"
    ),
    (1280, 36): Size(
        option="gpt2_large", n_heads=20, repository="openai-community/gpt2-large", folder="774M"
    ),
    (1600, 48): Size(option="gpt2_xl", n_heads=25, repository="openai-community/gpt2-xl", folder="1558M"),
}
