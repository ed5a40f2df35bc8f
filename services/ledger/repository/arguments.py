"""Arguments of a statement that is put together from what is asked for."""

from __future__ import annotations


class Arguments(list[object]):
    """The values, in the order of their numbers."""

    def add(self, value: object) -> str:
        """Adds one; gives its name in the statement, such as "$3"."""
        self.append(value)
        return f"${len(self)}"
