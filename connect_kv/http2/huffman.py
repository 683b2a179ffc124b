"""Strings in the Huffman code of HPACK (RFC 7541, appendix B), decoded an octet at a time.

The code is canonical: the lengths of the code words say all of it. Nothing here encodes: a string may always
be sent as it is.
"""

from __future__ import annotations

from typing import Final

LENGTHS: Final = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c"
    "060a0a0c0d06080b0a0a080b080606060505050606060606060607080f060c0a"
    "0d06070707070707070707070707070707070707070707070807080d130d0e06"
    "0f05060506050606060507070606060506070605050607070707070f0b0e0d1c"
    "1416141416161617161717171717181718181617181717171715161716171718"
    "1615141616171715171616181516171715151615171617171416161617161617"
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b"
    "14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"
    "1e"
)
"""Bits of each octet's code word, and of the end of the string (256), which no string may hold."""

_Node = list[int]
"""Where a bit 0 and a bit 1 lead: to another node, or to the symbol ``-1 - number``."""


def _tree() -> list[_Node]:
    nodes: list[_Node] = [[0, 0]]
    code = length = 0
    for symbol in sorted(range(257), key=lambda one: (LENGTHS[one], one)):
        code <<= LENGTHS[symbol] - length
        length = LENGTHS[symbol]
        node = nodes[0]
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            if not node[bit]:
                nodes.append([0, 0])
                node[bit] = len(nodes) - 1
            node = nodes[node[bit]]
        node[code & 1] = -1 - symbol
        code += 1
    return nodes


_NODES: Final = _tree()
_Step = tuple[int, bytes]
_STEPS: Final[dict[int, _Step]] = {}
"""By node and octet: the node it leads to, and the octets that were decoded on the way. Filled as needed."""
_SHARED: Final[dict[_Step, _Step]] = {}


def _ends() -> frozenset[int]:
    """Nodes at which a string may end: after fewer than eight bits, all 1, of padding (5.2)."""
    node, found = 0, [0]
    for _ in range(7):
        node = _NODES[node][1]
        found.append(node)
    return frozenset(found)


_ENDS: Final = _ends()


def _step(node: int, octet: int) -> _Step:
    text, start = bytearray(), node
    for shift in range(7, -1, -1):
        node = _NODES[node][octet >> shift & 1]
        if node < 0:
            if node == -257:
                raise ValueError("the end of the string is coded within it")
            text.append(-1 - node)
            node = 0
    step = (node, bytes(text))
    step = _STEPS[start << 8 | octet] = _SHARED.setdefault(step, step)
    return step


def decode(data: bytes) -> bytes:
    """What was encoded. Raises ValueError for what no encoder makes."""
    node, parts = 0, []
    for octet in data:
        node, text = _STEPS.get(node << 8 | octet) or _step(node, octet)
        parts.append(text)
    if node not in _ENDS:
        raise ValueError("a string ends within a code word")
    return b"".join(parts)
