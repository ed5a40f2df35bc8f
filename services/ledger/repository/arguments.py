"""Arguments of statements."""

from __future__ import annotations

from collections.abc import Iterable


class Arguments(list[object]):
    """Those of a statement that is put together from what is asked for, in the order of their numbers."""

    def add(self, value: object) -> str:
        """Adds one; gives its name in the statement, such as "$3"."""
        self.append(value)
        return f"${len(self)}"


def literal(values: Iterable[object]) -> str:
    """An array as text, of values that need no quotes: the driver takes several times as long for each of an array."""
    return f"{{{','.join(map(str, values))}}}"
