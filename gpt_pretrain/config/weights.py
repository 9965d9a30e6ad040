"""Where the first weights come from."""

from dataclasses import dataclass, field

from gpt_pretrain.config.fields import one_of, path_to
from gpt_pretrain.errors import InputError


@dataclass(kw_only=True, slots=True)
class WeightsConfig:
    """Where the first weights come from."""

    name: str = one_of("scratch", "checkpoint", "gpt2")
    path: str | None = path_to()  # a file or folder of weights in any format, a checkpoint or a run
    source: str = one_of("auto", "huggingface", "openai")  # gpt2 without a path: where it is downloaded from
    offline: bool = False  # never touch the network
    sha256: str | None = None  # of the downloaded file of weights, beside what its server declares
    # base addresses, tried in this order: a mirror goes before the original
    huggingface_urls: list[str] = field(default_factory=lambda: ["https://huggingface.co"])
    # the same for OpenAI's files
    openai_urls: list[str] = field(
        default_factory=lambda: ["https://openaipublic.blob.core.windows.net/gpt-2/models"]
    )

    def check(self) -> None:
        """Raise InputError where the settings contradict each other."""
        if self.name == "scratch" and self.path is not None:
            raise InputError(
                f"weights.path={self.path} has no effect with weights=scratch: add weights=checkpoint"
            )
        for key in ("huggingface_urls", "openai_urls"):
            for url in getattr(self, key):
                if not isinstance(url, str) or not url.startswith(("https://", "http://")):
                    raise InputError(f"weights.{key} has {url}, which is no http address")
