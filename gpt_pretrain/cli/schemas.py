"""What Hydra composes with: the folder of settings, and the classes that type them."""

import re
from pathlib import Path

from hydra.core.config_store import ConfigStore

from gpt_pretrain.config import MEMBERS, sections
from gpt_pretrain.sweep.plugin import register_sweeper

SWITCHED = {"true", "false", "null", "1", "0", "yes", "no", "on", "off", "y", "n", "", "???"}


def config_dir() -> Path:
    """`conf/` inside an installed package, else beside it in a clone."""
    package = Path(__file__).parent.parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def register_schemas(config_name: str, root: type) -> None:
    """Give the YAML files the classes of `config` to build on; a class without a file is an option itself."""
    store = ConfigStore.instance()
    store.store(config_name, root, group="schema", package="_global_")
    for section, base in sections(root):
        for name, member in MEMBERS.get(base, {}).items():
            store.store(name, member, group=f"schema/{section}")
            if not (config_dir() / section / f"{name}.yaml").is_file():
                store.store(name, member, group=section)
    register_sweeper()


def as_groups(config_name: str, words: list[str]) -> list[str]:
    """A command line's words as Hydra knows them: `debug=profile` is `debugging=profile` to it, and
    `plan.device=h100` is `plan_device=h100`.

    `debug` and `plan` by themselves are switches, and a group or section cannot share a setting's name.
    """
    if config_name != "train":
        return words
    words = [re.sub(r"^plan\.(?=\w+=)", "plan_", word) for word in words]
    return [
        f"debugging={value}" if key == "debug" and value.lower() not in SWITCHED else word
        for word in words
        for key, _, value in [word.partition("=")]
    ]


def options(group: str, root: type) -> dict[str, str]:
    """The options of a group, each with the first comment of its file or the first line of its class."""
    classes = MEMBERS.get(dict(sections(root)).get(group, object), {})
    found = {name: (cls.__doc__ or "").partition("\n")[0] for name, cls in classes.items()}
    found |= {file.stem: _first_comment(file) for file in (config_dir() / group).glob("*.yaml")}
    return dict(sorted(found.items()))


def _first_comment(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return next((line[2:] for line in lines if line.startswith("# ") and "@package" not in line), "")
