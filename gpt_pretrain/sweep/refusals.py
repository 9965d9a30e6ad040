"""How this program says what Hydra refused. The command line's room knows, and hands it down at the start."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

_said: list[Callable[[], AbstractContextManager[None]]] = [nullcontext]


def refusing() -> AbstractContextManager[None]:
    """A context in which what users cause and can mend becomes a UserFacingError."""
    return _said[-1]()


def refuse_with(said: Callable[[], AbstractContextManager[None]]) -> None:
    _said[:] = [said]
