"""LevelDB for Python: plyvel, or its fork plyvel-next where that has no wheels. Both have one interface.

Which of the two an installation has is decided in pyproject.toml; what both must keep is in tests/contract.
"""

from __future__ import annotations

from connect_kv.errors import RefusedToStart

try:
    import plyvel
except ImportError:
    try:
        import plyvel_next as plyvel
    except ImportError:
        raise RefusedToStart(
            "a member needs LevelDB for Python, which this installation has not, for there is no wheel of"
            " it for this platform: pip install 'connect-kv[leveldb]' compiles it, with LevelDB's headers and"
            " a C++ compiler"
        ) from None

__all__ = ["plyvel"]
