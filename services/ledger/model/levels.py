"""All full nodes over neighbouring leaves, from which the root of any number of them follows. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from services.ledger.model.merkle import node_hash, root_of_frontier


class Levels:
    """The tree over some leaves. However many roots are asked for, each node is hashed once.

    Its nodes of a level are those of a larger tree, if the first leaf is there at a multiple of what such a node spans.
    """

    def __init__(self, leaf_hashes: Sequence[bytes]) -> None:
        row = list(leaf_hashes)
        # Of each level the full nodes, from left to right.
        self._rows = [row]
        while len(row) > 1:
            row = list(map(node_hash, row[::2], row[1::2]))
            self._rows.append(row)

    def nodes(self, level: int) -> list[bytes]:
        """The full nodes of a level."""
        return self._rows[level] if level < len(self._rows) else []

    def frontier(self, leaf_count: int) -> list[bytes]:
        """Roots of the full subtrees that make up the tree of the first leaves, from left to right."""
        return [
            self._rows[level][(leaf_count >> level) - 1]
            for level in reversed(range(leaf_count.bit_length()))
            if leaf_count >> level & 1
        ]

    def root(self, leaf_count: int) -> bytes:
        """The root of the tree of the first leaves."""
        return root_of_frontier(b"".join(self.frontier(leaf_count)))
