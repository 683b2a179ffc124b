"""LevelDB for Python: plyvel, or its fork plyvel-next where that has no wheels. Both have one interface.

Which of the two an installation has is decided in pyproject.toml; what both must keep is in tests/contract.
"""

from __future__ import annotations

try:
    import plyvel
except ImportError:
    import plyvel_next as plyvel

__all__ = ["plyvel"]
