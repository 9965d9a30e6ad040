"""Making the sweeper known to Hydra."""

import sys
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins


def register_sweeper() -> None:
    """Make `hydra/sweeper=gpt_pretrain` an option."""
    plugins = Plugins.instance()  # loads Hydra's own sweeper anew, which ours must build on
    from gpt_pretrain.sweep.sweeper import NAMESPACE, Sweeper

    folder = str(Path(__file__).parent)  # of hydra_plugins/, to which every plugin adds a part
    if folder not in sys.path:
        sys.path.append(folder)
        plugins.register(Sweeper)
    node = {"_target_": f"{NAMESPACE}.Sweeper", "max_batch_size": None, "params": None}
    ConfigStore.instance().store("gpt_pretrain", node, group="hydra/sweeper", provider="gpt_pretrain")
