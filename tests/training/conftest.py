"""The corpus that data's tests make."""

from tests.data.conftest import cache, load  # noqa: F401
