"""Writes docs/configuration.md from the table of options: ``python -m tests.docs.configuration``."""

from __future__ import annotations

from pathlib import Path

from connect_kv.options import GROUPS, Option

PAGE = Path(__file__).parent.parent.parent / "docs" / "configuration.md"

HEAD = """# Configuration
Everything a node can be told. Made from the table in `connect_kv/options.py` by
`python -m tests.docs.configuration`; a test keeps the two alike.

An option of `connect-kv serve` wins over its environment variable, that over the key in the `Connect.toml`
which `--config` names. What is given nowhere has the default. `Cluster` takes the keys of the file as keyword
arguments, and `Server` obeys the environment as well.

- DURATION: `3s`, `500ms`, `1h30m`, `2d`; a bare number counts milliseconds where the name ends in `ms`,
  else seconds.
- SIZE: `64KiB`, `512MiB`, `1.5GiB`, in thousands `2GB`; a bare number counts bytes.
- In Connect.toml both are texts (`quota_bytes = "2GiB"`) or bare numbers (`election_ms = 1000`).
"""

MEMBERS = """
## [[members]]
Instead of `--initial-cluster`, Connect.toml has a table for each member, so that all of them can share one
file; `node`, or `CONNECT_KV_NAME`, says which of them a process is. A member listens where its table says,
unless `listen_client`, `listen_peer` or `listen_http` says otherwise (`0.0.0.0:2379` in a container): the
table then is what others dial.

| key | default |
|---|---|
| `name` | must be given |
| `host` | 127.0.0.1 |
| `client_port` | 2379 |
| `peer_port` | 2380 |
| `http_port` | 2381; 0: no HTTP |
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_group(title, options) for title, options in GROUPS.items()) + MEMBERS


def _group(title: str, options: tuple[Option, ...]) -> str:
    rows = "\n".join(_row(option) for option in options)
    columns = (
        "| option | Connect.toml | environment | takes | default | what it is |\n|---|---|---|---|---|---|"
    )
    return f"\n## {title}\n{columns}\n{rows}\n"


def _row(option: Option) -> str:
    key = f"`{option.file_key}`" if option.file_key else ""
    takes = " or ".join(option.choices) if option.choices else option.takes
    cells = (f"`{option.flag}`", key, f"`{option.variable}`", takes, option.default, option.help)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page())
