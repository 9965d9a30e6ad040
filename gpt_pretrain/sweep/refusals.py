"""How this program says what Hydra refused. The command line's room knows, and hands it down at the start."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from gpt_pretrain.errors import UserFacingError

_said: list[Callable[[], AbstractContextManager[None]]] = [nullcontext]


@contextmanager
def refusing() -> Iterator[None]:
    """A context in which what users cause and can mend becomes a UserFacingError.

    A signal stays one: it is for the whole sweep, and says nothing of the point that was looked at.
    """
    try:
        with _said[-1]():
            yield
    except UserFacingError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise error.__cause__ from None
        raise


def refuse_with(said: Callable[[], AbstractContextManager[None]]) -> None:
    _said[:] = [said]
