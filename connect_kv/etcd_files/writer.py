"""Writes a bbolt file as a stream: trees from their leaves up, each page once and never again.

The front of the file names the last page, so the layout is made first, by a walk over the same pairs that
writes nothing (`Layout`), and the file by a second walk (`write`). Both must see the same: a frozen view.
In memory is one page of each height of the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field

from connect_kv.etcd_files.pages import (
    A_BUCKET,
    BRANCH,
    BRANCH_PAGE,
    BUCKET,
    FREELIST_PAGE,
    LEAF,
    LEAF_PAGE,
    MOST_ELEMENTS,
    PAGE_HEAD,
    Meta,
)

PAGE_SIZE = 4096
_FREELIST = 2
_FIRST = 3
"""After the two metas and an empty list of free pages."""

Pairs = Iterable[tuple[bytes, bytes] | None]
"""In order of keys, each once. None where the walk may be interrupted: it comes out as empty bytes."""

Bucket = tuple[bytes, Callable[[], Pairs]]
"""Its name, and a walk over what is in it: made twice."""


@dataclass(slots=True)
class _Level:
    """A branch page that is being filled."""

    keys: list[bytes] = field(default_factory=list)
    children: list[int] = field(default_factory=list)
    size: int = 0


class _Pages:
    """Numbers pages as they are made; the layout alone does not make them."""

    def __init__(self, page_size: int, *, make: bool) -> None:
        self.size = page_size
        self.next = _FIRST
        self._make = make

    def leaf(self, pairs: list[tuple[bytes, bytes]], size: int, *, flags: int = 0) -> tuple[int, bytes]:
        """(number, bytes) of a leaf; `size` is that of its keys and values."""
        whole = PAGE_HEAD.size + len(pairs) * LEAF.size + size
        number, count = self._number(whole)
        if not self._make:
            return number, b""
        parts = [PAGE_HEAD.pack(number, LEAF_PAGE, len(pairs), count - 1)]
        at = len(pairs) * LEAF.size
        pack = LEAF.pack
        for key, value in pairs:
            parts.append(pack(flags, at, len(key), len(value)))
            at += len(key) + len(value) - LEAF.size
        for pair in pairs:
            parts += pair
        return number, b"".join(parts).ljust(count * self.size, b"\0")

    def branch(self, level: _Level) -> tuple[int, bytes]:
        """(number, bytes) of a branch page; `level` has its keys and children."""
        number, count = self._number(PAGE_HEAD.size + level.size)
        if not self._make:
            return number, b""
        parts = [PAGE_HEAD.pack(number, BRANCH_PAGE, len(level.keys), count - 1)]
        at = len(level.keys) * BRANCH.size
        for key, child in zip(level.keys, level.children, strict=True):
            parts.append(BRANCH.pack(at, len(key), child))
            at += len(key) - BRANCH.size
        parts += level.keys
        return number, b"".join(parts).ljust(count * self.size, b"\0")

    def _number(self, size: int) -> tuple[int, int]:
        count = -(-size // self.size)
        number, self.next = self.next, self.next + count
        return number, count


class _Tree:
    """The tree of one bucket."""

    def __init__(self, pages: _Pages) -> None:
        self._pages = pages
        self._levels: list[_Level] = []
        self.root = 0

    def write(self, pairs: Pairs) -> Iterator[bytes]:
        """Its pages as they are made, and empty bytes at pauses; then `root` is known."""
        room = self._pages.size - PAGE_HEAD.size
        leaf: list[tuple[bytes, bytes]] = []
        size = 0
        for pair in pairs:
            if pair is None:
                yield b""
                continue
            item = len(pair[0]) + len(pair[1])
            if leaf and (size + item + (len(leaf) + 1) * LEAF.size > room or len(leaf) == MOST_ELEMENTS):
                yield from self._leaf(leaf, size)
                leaf, size = [], 0
            leaf.append(pair)
            size += item
        yield from self._leaf(leaf, size)
        yield from self._top()

    def _leaf(self, leaf: list[tuple[bytes, bytes]], size: int) -> Iterator[bytes]:
        number, page = self._pages.leaf(leaf, size)
        yield page
        yield from self._add(0, leaf[0][0] if leaf else b"", number)

    def _add(self, height: int, key: bytes, child: int) -> Iterator[bytes]:
        """A page is done: note it one level up. A branch that is full is written, but for its last child,
        which begins the next one: so none ends with a single child.
        """
        if height == len(self._levels):
            self._levels.append(_Level())
        level = self._levels[height]
        item = BRANCH.size + len(key)
        full = PAGE_HEAD.size + level.size + item > self._pages.size or len(level.keys) == MOST_ELEMENTS
        if full and len(level.keys) > 2:
            last = level.keys.pop(), level.children.pop()
            level.size -= BRANCH.size + len(last[0])
            number, page = self._pages.branch(level)
            yield page
            first = level.keys[0]
            self._levels[height] = level = _Level([last[0]], [last[1]], BRANCH.size + len(last[0]))
            yield from self._add(height + 1, first, number)
        level.keys.append(key)
        level.children.append(child)
        level.size += item

    def _top(self) -> Iterator[bytes]:
        """Write the branches that are not full, upwards, until one page has all others under it."""
        height = 0
        while height < len(self._levels):
            level = self._levels[height]
            if len(level.children) == 1 and height == len(self._levels) - 1:
                self.root = level.children[0]
                return
            number, page = self._pages.branch(level)
            yield page
            yield from self._add(height + 1, level.keys[0], number)
            height += 1


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything will lie: what the front of a file needs to know."""

    page_size: int
    root: int
    pages: int

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.pages * self.page_size


def _trees(pages: _Pages, buckets: Iterable[Bucket]) -> Iterator[bytes | int]:
    """Pages and pauses; the number of the root page comes last."""
    roots: list[tuple[bytes, bytes]] = []
    for name, pairs in buckets:
        tree = _Tree(pages)
        yield from tree.write(pairs())
        roots.append((name, BUCKET.pack(tree.root, 0)))
    number, page = pages.leaf(roots, sum(len(name) + len(value) for name, value in roots), flags=A_BUCKET)
    yield page
    yield number


def plan(buckets: Iterable[Bucket], page_size: int = PAGE_SIZE) -> Generator[Layout | None, None, None]:
    """Walk over what is to be written, in order of names; None at pauses, then the layout."""
    pages = _Pages(page_size, make=False)
    root = 0
    for part in _trees(pages, buckets):
        if isinstance(part, int):
            root = part
        elif not part:
            yield None
    yield Layout(page_size, root, pages.next)


def write(layout: Layout, buckets: Iterable[Bucket]) -> Generator[bytes, None, None]:
    """The file, page by page, and empty bytes at pauses.

    Raises ValueError if the pairs are not those of the layout: what was yielded is no file then.
    """
    pages = _Pages(layout.page_size, make=True)
    for number in (0, 1):
        meta = Meta(layout.page_size, layout.root, _FREELIST, layout.pages, 2 - number)
        yield meta.encode(number)
    yield PAGE_HEAD.pack(_FREELIST, FREELIST_PAGE, 0, 0).ljust(layout.page_size, b"\0")
    root = 0
    for part in _trees(pages, buckets):
        if isinstance(part, int):
            root = part
        else:
            yield part
    if (root, pages.next) != (layout.root, layout.pages):
        raise ValueError("what was written is not what was planned: the view is not frozen")
