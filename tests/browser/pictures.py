"""Makes the pictures of docs/dashboard.md anew: python -m tests.browser.pictures."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from tests.browser.test_dashboard import drive, shown

TARGET = Path(__file__).parents[2] / "docs" / "dashboard"
PICTURES = (
    ("overview-1280-light", "#/overview", 1280, "light"),
    ("keys-1280-dark", "#/keys", 1280, "dark"),
    ("key-768-light", "#/key?key=config/app.json", 768, "light"),
    ("machines-768-dark", "#/machines", 768, "dark"),
    ("overview-400-dark", "#/overview", 400, "dark"),
    ("keys-400-light", "#/keys?prefix=services/", 400, "light"),
)
"""Name, view, width, theme."""
BUSY_SECONDS = 45


async def main() -> None:
    """With something to be seen in the charts."""
    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        async with shown(Path(directory)) as found, found.cluster.client(session=False) as client:
            for number in range(BUSY_SECONDS * 20):
                await client.put(f"config/{number % 7}", "x" * 50)
                await client.get(f"config/{number % 7}")
                await asyncio.sleep(0.05)
            await drive("pictures", found.address, {"pictures": PICTURES, "directory": str(TARGET)})


if __name__ == "__main__":
    asyncio.run(main())
