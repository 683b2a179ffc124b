"""IntervalIndex: which of many ranges hold a given key, at the cost of those that do."""

from __future__ import annotations

import zlib
from typing import Generic, TypeVar

T = TypeVar("T")


class _Node(Generic[T]):
    """One range with its items; a node of a treap ordered by range, a heap by priority."""

    __slots__ = ("items", "left", "order", "priority", "reach", "right", "start", "stop")

    def __init__(self, start: bytes, stop: bytes | None) -> None:
        self.start = start
        self.stop = stop
        self.order = (start, stop is None, stop or b"")
        # A hash instead of a random number: the tree is balanced, and the same in every run.
        self.priority = zlib.crc32(stop or b"\xff", zlib.crc32(start))
        self.items: dict[T, None] = {}
        self.left: _Node[T] | None = None
        self.right: _Node[T] | None = None
        self.reach = stop
        """The largest stop in the subtree; None: no end."""

    def settle(self) -> None:
        """Recompute `reach` after a child has changed."""
        reach = self.stop
        for child in (self.left, self.right):
            if child is not None and reach is not None and (child.reach is None or child.reach > reach):
                reach = child.reach
        self.reach = reach


class IntervalIndex(Generic[T]):
    """Items under ranges ``[start, stop)``; many items may share one. A stop of None has no end."""

    def __init__(self) -> None:
        self._root: _Node[T] | None = None
        self._nodes: dict[tuple[bytes, bytes | None], _Node[T]] = {}

    def __bool__(self) -> bool:
        return self._root is not None

    def add(self, start: bytes, stop: bytes | None, item: T) -> None:
        """Put `item` under the range."""
        node = self._nodes.get((start, stop))
        if node is None:
            node = self._nodes[start, stop] = _Node(start, stop)
            self._root = _insert(self._root, node)
        node.items[item] = None

    def remove(self, start: bytes, stop: bytes | None, item: T) -> None:
        """Take it away again. Raises KeyError if it is not there."""
        node = self._nodes[start, stop]
        del node.items[item]
        if not node.items:
            del self._nodes[start, stop]
            self._root = _remove(self._root, node)

    def stab(self, key: bytes) -> list[T]:
        """The items of all ranges that hold `key`."""
        found: list[T] = []
        stack = [self._root]
        while stack:
            node = stack.pop()
            if node is None or (node.reach is not None and node.reach <= key):
                continue
            stack.append(node.left)
            if node.start <= key:
                if node.stop is None or key < node.stop:
                    found.extend(node.items)
                stack.append(node.right)
        return found


def _insert(tree: _Node[T] | None, node: _Node[T]) -> _Node[T]:
    if tree is None:
        return node
    if node.order < tree.order:
        child = tree.left = _insert(tree.left, node)
        if child.priority > tree.priority:
            tree.left, child.right = child.right, tree
            tree.settle()
            tree = child
    else:
        child = tree.right = _insert(tree.right, node)
        if child.priority > tree.priority:
            tree.right, child.left = child.left, tree
            tree.settle()
            tree = child
    tree.settle()
    return tree


def _remove(tree: _Node[T] | None, node: _Node[T]) -> _Node[T] | None:
    if tree is None or tree is node:
        return _join(node.left, node.right)
    if node.order < tree.order:
        tree.left = _remove(tree.left, node)
    else:
        tree.right = _remove(tree.right, node)
    tree.settle()
    return tree


def _join(left: _Node[T] | None, right: _Node[T] | None) -> _Node[T] | None:
    """One tree of two, where everything on the left sorts first."""
    if left is None or right is None:
        return left or right
    if left.priority > right.priority:
        left.right = _join(left.right, right)
        left.settle()
        return left
    right.left = _join(left, right.left)
    right.settle()
    return right
