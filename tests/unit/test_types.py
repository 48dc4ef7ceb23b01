"""What is typed ``Any`` is little, becomes less, and says why where it stands."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import echod

ROOT = Path(echod.__file__).parent

#: Lines of the package that have ``: Any`` or ``-> Any``.  There were 194; lower it when there are
#: fewer.
MOST = 46
#: How many lines above the reason may begin.
ABOVE = 5

_TYPED = re.compile(r":\s*Any\b|-> Any\b")
_REASON = re.compile(r"#.*\bAny: \w")


def typed() -> Iterator[tuple[str, list[str]]]:
    """Each such line, by file and number, with those above it."""
    for path in sorted(ROOT.rglob("*.py")):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if _TYPED.search(line.partition("#")[0]):
                where = f"{path.relative_to(ROOT)}:{number + 1}"
                yield where, lines[max(0, number - ABOVE) : number]


def test_anyIsRare() -> None:
    """Fewer are welcome: then the number falls."""
    assert len(list(typed())) <= MOST


def test_anyHasAReason() -> None:
    """A comment above it begins with ``Any:``."""
    without = [where for where, above in typed() if not any(map(_REASON.search, above))]
    assert without == []


def test_noBaseIsAny() -> None:
    """A mixin has the base that it is mixed into: of one over ``Any`` nothing would be checked."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text())
        anything = {
            node.target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and ast.unparse(node.annotation) == "Any"
        }
        found += [
            f"{path.relative_to(ROOT)}: {node.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            and anything & {ast.unparse(base) for base in node.bases}
        ]
    assert found == []
