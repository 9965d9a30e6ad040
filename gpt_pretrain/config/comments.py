"""What is said of each setting: the comment beside it where it is declared, so that it is written once."""

import ast
import dataclasses
import inspect
import io
import re
import tokenize
from functools import cache

_TO_TOOLS = re.compile(r"#\s*(noqa|type:|pragma|fmt:|ruff:|mypy:)")


@cache
def comments(cls: type) -> dict[str, str]:
    """The comment of each field of a settings class, inherited ones too; '' where there is none.

    It stands at the end of the field's last line, or on lines of its own above.
    """
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if dataclasses.is_dataclass(owner):
            found |= {name: said for name, said in _own(owner).items() if said or name not in found}
    return found


def _own(cls: type) -> dict[str, str]:
    source = inspect.getsource(cls)
    said: dict[int, str] = {}  # line to comment
    alone: set[int] = set()  # lines that hold nothing else
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not _TO_TOOLS.match(token.string):
            said[token.start[0]] = token.string.lstrip("# ")
            if not token.line[: token.start[1]].strip():
                alone.add(token.start[0])
    found = {}
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above: list[str] = []
            line = node.lineno - 1
            while line in alone:
                above.insert(0, said[line])
                line -= 1
            found[node.target.id] = said.get(node.end_lineno or node.lineno, " ".join(above))
    return found
