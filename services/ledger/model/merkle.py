"""Merkle trees of RFC 6962 section 2.1, with SHA-256: roots, growth, proofs and their verification. No I/O.

A node is told by its level, which is its height above the leaves, and its index from the left within the level. It is
full when it has 2**level leaves. Only full nodes are ever stored, since what is full never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from typing import NamedTuple

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
# Full nodes of every eighth level are stored, so that no proof needs more than a few hundred hashes of each.
STORED_LEVELS = 8

# What is hashed before a record, and before two nodes: no record can pass for a node.
LEAF_PREFIX = b"\x00"
_NODE_PREFIX = b"\x01"


class Node(NamedTuple):
    """A full node and its hash."""

    level: int
    node_index: int
    hash: bytes


class Span(NamedTuple):
    """Neighbouring full nodes of one level."""

    level: int
    first_index: int
    node_count: int


class Range(NamedTuple):
    """The leaves from start to before end, whose root is a part of a proof."""

    start: int
    end: int


def leaf_hash(record: bytes) -> bytes:
    """The hash of a leaf."""
    return sha256(LEAF_PREFIX + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node above the leaves."""
    return sha256(_NODE_PREFIX + left + right).digest()


class Growth:
    """A tree right after leaves were added.

    Attributes:
        size: leaves of the tree.
        frontier: roots of its full subtrees from left to right, 32 bytes each.
        root: its root.
        nodes: the full nodes to store that the new leaves completed.
    """

    def __init__(self, size: int, rows: list[tuple[int, list[bytes]]], frontier: bytes, nodes: list[Node]) -> None:
        self.size = size
        self.frontier = frontier
        self.nodes = nodes
        # Of each level: the index of its first node that is known here, and the hashes from that on.
        self._rows = rows

    @cached_property
    def root(self) -> bytes:
        """The root of the whole tree."""
        return root_of_frontier(self.frontier)

    @cached_property
    def _peaks(self) -> dict[int, bytes]:
        """The root of each full subtree of the frontier, by level."""
        levels = [level for level in reversed(range(self.size.bit_length())) if self.size >> level & 1]
        return dict(zip(levels, split_hashes(self.frontier), strict=True))

    @cached_property
    def _partial_roots(self) -> list[bytes | None]:
        """For each level, the root of what lies right of the last full node of that level; None when nothing does."""
        roots: list[bytes | None] = [None]
        for level in range(self.size.bit_length()):
            below, peak = roots[-1], self._peaks.get(level)
            roots.append(below if peak is None else peak if below is None else node_hash(peak, below))
        return roots

    def inclusion_path(self, leaf_index: int) -> list[bytes]:
        """The hashes beside the way from one of the added leaves to the root, from the leaf up."""
        path: list[bytes] = []
        index = leaf_index
        for level in range((self.size - 1).bit_length()):
            full_count = self.size >> level
            sibling = index ^ 1
            if sibling < full_count:
                # Left of a node that is not full lies the frontier.
                first_index, row = self._rows[level]
                path.append(row[sibling - first_index] if index < full_count else self._peaks[level])
            elif sibling == full_count:
                partial = self._partial_roots[level]
                if partial is not None:
                    path.append(partial)
            index >>= 1
        return path


class Tree:
    """A tree of which only the frontier is known: enough to add leaves.

    Args:
        size: leaves of the tree.
        frontier: roots of its full subtrees from left to right, 32 bytes each.

    Raises:
        ValueError: a tree of this size has another number of full subtrees.
    """

    def __init__(self, size: int = 0, frontier: bytes = b"") -> None:
        if len(frontier) != size.bit_count() * HASH_BYTES:
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} full subtrees")
        self.size = size
        self.frontier = frontier

    @property
    def root(self) -> bytes:
        """The root of the whole tree."""
        return root_of_frontier(self.frontier)

    def grow(self, leaf_hashes: Sequence[bytes]) -> Growth:
        """The tree after leaves were added. This one stays as it is."""
        digest = sha256
        size = self.size + len(leaf_hashes)
        old_peaks = split_hashes(self.frontier)
        new_peaks: list[bytes] = []
        rows: list[tuple[int, list[bytes]]] = []
        nodes: list[Node] = []
        row = list(leaf_hashes)
        for level in range(size.bit_length()):
            first_index = self.size >> level
            if level and level % STORED_LEVELS == 0:
                nodes += (Node(level, first_index + offset, hash_) for offset, hash_ in enumerate(row))
            if first_index & 1:
                # The last full node of this level waited for its right sibling.
                row.insert(0, old_peaks.pop())
                first_index -= 1
            rows.append((first_index, row))
            if len(row) & 1:
                new_peaks.append(row[-1])
            lefts, rights = row[::2], row[1::2]
            row = [digest(_NODE_PREFIX + left + right).digest() for left, right in zip(lefts, rights, strict=False)]
        return Growth(size, rows, b"".join(reversed(new_peaks)), nodes)


def split_hashes(hashes: bytes) -> list[bytes]:
    """Hashes that lie side by side, one by one."""
    return [hashes[offset : offset + HASH_BYTES] for offset in range(0, len(hashes), HASH_BYTES)]


def root_of_frontier(frontier: bytes) -> bytes:
    """The root of a tree, from the roots of its full subtrees."""
    peaks = split_hashes(frontier)
    if not peaks:
        return EMPTY_ROOT
    root = peaks.pop()
    while peaks:
        root = node_hash(peaks.pop(), root)
    return root


def root_of(leaf_hashes: Sequence[bytes]) -> bytes:
    """The root of the tree with these leaves."""
    return Tree().grow(leaf_hashes).root


# Proofs out of what is stored: which ranges a proof is made of, which stored nodes their roots need, and the roots.


def inclusion_ranges(leaf_index: int, size: int) -> list[Range]:
    """The ranges whose roots, in this order, prove a leaf: PATH(m, D[n]) of RFC 6962 section 2.1.1.

    Raises:
        ValueError: there is no such leaf in a tree of this size.
    """
    if not 0 <= leaf_index < size:
        raise ValueError(f"no leaf {leaf_index} in a tree of {size}")
    ranges: list[Range] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if leaf_index < middle:
            ranges.append(Range(middle, end))
            end = middle
        else:
            ranges.append(Range(start, middle))
            start = middle
    return ranges[::-1]


def consistency_ranges(first_size: int, second_size: int) -> list[Range]:
    """The ranges whose roots, in this order, prove that the larger tree continues the smaller one.

    PROOF(m, D[n]) of RFC 6962 section 2.1.2. Empty when both are the same, or the first is empty.

    Raises:
        ValueError: the second tree is the smaller one.
    """
    if not 0 <= first_size <= second_size:
        raise ValueError(f"a tree of {second_size} leaves can't continue one of {first_size}")
    if first_size in {0, second_size}:
        return []
    ranges: list[Range] = []
    start, end = 0, second_size
    while first_size < end:
        middle = start + _split(end - start)
        if first_size <= middle:
            ranges.append(Range(middle, end))
            end = middle
        else:
            ranges.append(Range(start, middle))
            start = middle
    if start > 0:
        # Otherwise what remains is the first tree itself, whose root the verifier knows.
        ranges.append(Range(start, end))
    return ranges[::-1]


def stored_spans(ranges: Iterable[Range]) -> list[Span]:
    """The stored nodes that the roots of ranges are computed from, neighbours together."""
    spans: list[Span] = []
    for level, index in sorted({node for range_ in ranges for node in _stored_nodes(*range_)}):
        last = spans[-1] if spans else None
        if last is not None and last.level == level and last.first_index + last.node_count == index:
            spans[-1] = last._replace(node_count=last.node_count + 1)
        else:
            spans.append(Span(level, index, 1))
    return spans


def range_root(range_: Range, stored: Callable[[int, int], bytes]) -> bytes:
    """The root of a range of a proof.

    Args:
        stored: gives the hash of a stored node by level and index.
    """
    start, end = range_
    level = _stored_level(start, end)
    if level is not None:
        return stored(level, start >> level)
    middle = start + _split(end - start)
    return node_hash(range_root(Range(start, middle), stored), range_root(Range(middle, end), stored))


def _stored_nodes(start: int, end: int) -> Iterator[tuple[int, int]]:
    level = _stored_level(start, end)
    if level is not None:
        yield level, start >> level
        return
    middle = start + _split(end - start)
    yield from _stored_nodes(start, middle)
    yield from _stored_nodes(middle, end)


def _stored_level(start: int, end: int) -> int | None:
    """The level of the stored node with exactly these leaves, if there is one: leaves themselves are stored too."""
    level = (end - start).bit_length() - 1
    is_full = end - start == 1 << level
    return level if is_full and level % STORED_LEVELS == 0 else None


def _split(count: int) -> int:
    """The largest power of two below a number of leaves above one: how many of them lie on the left."""
    return 1 << ((count - 1).bit_length() - 1)


def verify_inclusion(hash_: bytes, leaf_index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether a path proves that a leaf is in the tree with this root: RFC 9162 section 2.1.3.2."""
    if not 0 <= leaf_index < size:
        return False
    turns = _turns(leaf_index, size - 1)
    if len(turns) != len(path):
        return False
    for sibling, is_left in zip(path, turns, strict=True):
        hash_ = node_hash(sibling, hash_) if is_left else node_hash(hash_, sibling)
    return hash_ == root


def verify_consistency(
    first_size: int, second_size: int, first_root: bytes, second_root: bytes, path: Sequence[bytes]
) -> bool:
    """Whether a path proves that the second tree continues the first: RFC 9162 section 2.1.4.2."""
    if not 0 <= first_size <= second_size:
        return False
    if first_size in {0, second_size}:
        return not path and first_root == (second_root if first_size else EMPTY_ROOT)
    # When the first tree is full, its root is what the way begins with.
    hashes = [first_root, *path] if first_size.bit_count() == 1 else list(path)
    index, last = first_size - 1, second_size - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    turns = _turns(index, last)
    if len(turns) != len(hashes) - 1:
        return False
    first = second = hashes[0]
    for sibling, is_left in zip(hashes[1:], turns, strict=True):
        if is_left:
            first = node_hash(sibling, first)
        second = node_hash(sibling, second) if is_left else node_hash(second, sibling)
    return first == first_root and second == second_root


def _turns(index: int, last: int) -> list[bool]:
    """The way from a node up to the root: whether each sibling beside it is on the left.

    Args:
        last: index of the last node of the same level.
    """
    turns: list[bool] = []
    while last > 0:
        if index & 1 or index < last:
            turns.append(bool(index & 1))
        # A last node without a sibling is passed up as it is.
        index, last = index >> 1, last >> 1
    return turns
