"""Trees, and proofs against a reference that follows the definitions of RFC 6962 section 2.1 word for word."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ledger.model import merkle
from services.ledger.model.merkle import Range, Tree

SIZES = st.integers(1, 700)
# The leaves and roots that implementations of Certificate Transparency test with.
KNOWN_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
KNOWN_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def reference_root(leaves: list[bytes]) -> bytes:
    """MTH(D[n]); leaves are hashed already."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    middle = reference_split(len(leaves))
    return sha256(b"\x01" + reference_root(leaves[:middle]) + reference_root(leaves[middle:])).digest()


def reference_path(leaf_index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH(m, D[n])."""
    if len(leaves) == 1:
        return []
    middle = reference_split(len(leaves))
    if leaf_index < middle:
        return [*reference_path(leaf_index, leaves[:middle]), reference_root(leaves[middle:])]
    return [*reference_path(leaf_index - middle, leaves[middle:]), reference_root(leaves[:middle])]


def reference_subproof(size: int, leaves: list[bytes], *, whole: bool) -> list[bytes]:
    """SUBPROOF(m, D[n], b)."""
    if size == len(leaves):
        return [] if whole else [reference_root(leaves)]
    middle = reference_split(len(leaves))
    if size <= middle:
        return [*reference_subproof(size, leaves[:middle], whole=whole), reference_root(leaves[middle:])]
    return [*reference_subproof(size - middle, leaves[middle:], whole=False), reference_root(leaves[:middle])]


def reference_split(count: int) -> int:
    """The largest power of two that is smaller than the count."""
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def some_leaves(count: int) -> list[bytes]:
    """Hashes of different leaves."""
    return [merkle.leaf_hash(index.to_bytes(4, "big")) for index in range(count)]


LEAVES = some_leaves(700)


class Store:
    """Leaves and stored nodes of a tree, as the tables have them; counts what is read."""

    def __init__(self, leaves: list[bytes], nodes: list[merkle.Node]) -> None:
        self._hashes = {(0, index): hash_ for index, hash_ in enumerate(leaves)}
        self._hashes |= {(level, index): hash_ for level, index, hash_ in nodes}

    def roots(self, ranges: list[Range]) -> list[bytes]:
        """The proof that the ranges make up, out of nothing but the spans that were asked for."""
        read = {
            (span.level, index): self._hashes[span.level, index]
            for span in merkle.stored_spans(ranges)
            for index in range(span.first_index, span.first_index + span.node_count)
        }
        return [merkle.range_root(range_, lambda level, index: read[level, index]) for range_ in ranges]


def store_of(leaves: list[bytes]) -> Store:
    """What is stored when all leaves came at once."""
    return Store(leaves, Tree().grow(leaves).nodes)


def test_known_roots_of_certificate_transparency() -> None:
    hashes = [merkle.leaf_hash(leaf) for leaf in KNOWN_LEAVES]

    assert [merkle.root_of(hashes[:size]).hex() for size in range(9)] == KNOWN_ROOTS
    assert KNOWN_ROOTS[0] == merkle.EMPTY_ROOT.hex()


def test_known_inclusion_paths_of_certificate_transparency() -> None:
    hashes = [merkle.leaf_hash(leaf) for leaf in KNOWN_LEAVES]
    growth = Tree().grow(hashes)

    assert [hash_.hex() for hash_ in growth.inclusion_path(0)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]
    assert [hash_.hex() for hash_ in growth.inclusion_path(5)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def test_known_consistency_path_of_certificate_transparency() -> None:
    hashes = [merkle.leaf_hash(leaf) for leaf in KNOWN_LEAVES]

    assert [hash_.hex() for hash_ in store_of(hashes).roots(merkle.consistency_ranges(6, 8))] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@given(st.lists(st.integers(0, 300), max_size=6))
def test_a_tree_that_grows_in_batches_is_the_tree_of_all_leaves(counts: list[int]) -> None:
    tree, nodes, done = Tree(), [], 0
    for count in counts:
        leaves = some_leaves(done + count)
        growth = tree.grow(leaves[done:])
        done += count
        nodes += growth.nodes
        tree = Tree(growth.size, growth.frontier)

        assert (growth.size, growth.root) == (done, reference_root(leaves))
        assert tree.root == growth.root

    leaves = some_leaves(done)
    assert nodes == [(8, index, reference_root(leaves[index << 8 : (index + 1) << 8])) for index in range(done >> 8)]


@given(SIZES, SIZES, st.data())
def test_the_path_of_a_new_leaf_is_that_of_the_rfc(before: int, added: int, data: st.DataObject) -> None:
    leaves = some_leaves(before + added)
    first = Tree().grow(leaves[:before])
    growth = Tree(first.size, first.frontier).grow(leaves[before:])
    leaf_index = data.draw(st.integers(before, before + added - 1))

    path = growth.inclusion_path(leaf_index)

    assert path == reference_path(leaf_index, leaves)
    assert merkle.verify_inclusion(leaves[leaf_index], leaf_index, growth.size, path, growth.root)


@given(SIZES, st.data())
def test_inclusion_is_proved_from_what_is_stored(size: int, data: st.DataObject) -> None:
    leaf_index = data.draw(st.integers(0, size - 1))
    leaves = LEAVES[:size]

    # Nodes of a larger tree serve the smaller as well.
    path = store_of(LEAVES).roots(merkle.inclusion_ranges(leaf_index, size))

    assert path == reference_path(leaf_index, leaves)


@given(SIZES, st.data())
def test_consistency_is_proved_from_what_is_stored(second_size: int, data: st.DataObject) -> None:
    first_size = data.draw(st.integers(1, second_size))
    leaves = LEAVES[:second_size]

    path = store_of(LEAVES).roots(merkle.consistency_ranges(first_size, second_size))

    assert path == reference_subproof(first_size, leaves, whole=True)
    assert merkle.verify_consistency(
        first_size, second_size, merkle.root_of(leaves[:first_size]), merkle.root_of(leaves), path
    )


def test_every_tree_continues_the_empty_one() -> None:
    root = merkle.root_of(LEAVES[:5])

    assert merkle.consistency_ranges(0, 5) == []
    assert merkle.verify_consistency(0, 5, merkle.EMPTY_ROOT, root, [])
    assert not merkle.verify_consistency(0, 5, root, root, [])


def spoilt(path: list[bytes]) -> list[Callable[[], list[bytes]]]:
    """A path with each one hash changed or left out, one too many, and the wrong way round."""
    changed = [
        lambda place=place: [*path[:place], sha256(path[place]).digest(), *path[place + 1 :]]
        for place in range(len(path))
    ]
    shortened = [lambda place=place: path[:place] + path[place + 1 :] for place in range(len(path))]
    return [*changed, *shortened, lambda: [*path, merkle.EMPTY_ROOT]]


@given(st.integers(2, 200), st.data())
def test_a_spoilt_inclusion_path_proves_nothing(size: int, data: st.DataObject) -> None:
    leaf_index = data.draw(st.integers(0, size - 1))
    leaves = LEAVES[:size]
    path, root = reference_path(leaf_index, leaves), reference_root(leaves)

    assert merkle.verify_inclusion(leaves[leaf_index], leaf_index, size, path, root)
    for wrong in spoilt(path):
        assert not merkle.verify_inclusion(leaves[leaf_index], leaf_index, size, wrong(), root)
    assert not merkle.verify_inclusion(leaves[leaf_index - 1], leaf_index, size, path, root)
    assert not merkle.verify_inclusion(leaves[leaf_index], leaf_index ^ 1, size, path, root)
    assert not merkle.verify_inclusion(leaves[leaf_index], -1, size, path, root)
    assert not merkle.verify_inclusion(leaves[leaf_index], size, size, path, root)


@given(st.integers(2, 200), st.data())
def test_a_spoilt_consistency_path_proves_nothing(second_size: int, data: st.DataObject) -> None:
    first_size = data.draw(st.integers(1, second_size - 1))
    leaves = LEAVES[:second_size]
    first_root, second_root = reference_root(leaves[:first_size]), reference_root(leaves)
    path = reference_subproof(first_size, leaves, whole=True)

    assert merkle.verify_consistency(first_size, second_size, first_root, second_root, path)
    for wrong in spoilt(path):
        assert not merkle.verify_consistency(first_size, second_size, first_root, second_root, wrong())
    assert not merkle.verify_consistency(first_size, second_size, second_root, second_root, path)
    assert not merkle.verify_consistency(first_size, second_size, first_root, first_root, path)
    assert not merkle.verify_consistency(second_size, first_size, first_root, second_root, path)


@pytest.mark.parametrize("size", [10**9, 10**9 + 1, 2**30 - 1, 2**30])
def test_a_proof_among_a_billion_leaves_reads_few_hashes(size: int) -> None:
    for leaf_index in (0, size // 3, size - 1):
        for ranges in (merkle.inclusion_ranges(leaf_index, size), merkle.consistency_ranges(leaf_index + 1, size)):
            spans = merkle.stored_spans(ranges)

            assert sum(span.node_count for span in spans) <= 8 * 256
            assert len(spans) <= 40


def test_what_no_tree_can_prove_is_refused() -> None:
    with pytest.raises(ValueError, match="no leaf 5"):
        merkle.inclusion_ranges(5, 5)
    with pytest.raises(ValueError, match="can't continue"):
        merkle.consistency_ranges(6, 5)
    with pytest.raises(ValueError, match="full subtrees"):
        Tree(3, bytes(32))
