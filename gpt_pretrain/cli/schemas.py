"""What Hydra composes with: the folder of settings, and the classes that type them."""

from pathlib import Path

from hydra.core.config_store import ConfigStore

from gpt_pretrain.config import MEMBERS, sections
from gpt_pretrain.sweep.plugin import register_sweeper


def config_dir() -> Path:
    """`conf/` inside an installed package, else beside it in a clone."""
    package = Path(__file__).parent.parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def register_schemas(config_name: str, root: type) -> None:
    """Give the YAML files the classes of `config` to build on."""
    store = ConfigStore.instance()
    store.store(config_name, root, group="schema", package="_global_")
    for section, base in sections(root):
        for name, member in MEMBERS.get(base, {}).items():
            store.store(name, member, group=f"schema/{section}")
    register_sweeper()
