"""Writes docs/etcd-flags.md from the table of etcd's flags: ``python -m tests.docs.etcd_flags``."""

from __future__ import annotations

from pathlib import Path

from connect_kv.etcd_flags import FLAGS, Flag, FlagFate

PAGE = Path(__file__).parent.parent.parent / "docs" / "etcd-flags.md"

HEAD = """# In etcd's place
`connect-kv etcd` takes etcd's own flags (with one dash or two), its environment (`ETCD_NAME`) or its YAML
file (`--config-file`), of etcd 3.4 to 3.6: where a compose file, a unit or a chart starts an etcd, changing
the name of the program is enough. `--experimental-` may stand before a flag. Made from the table in
`connect_kv/etcd_flags.py` by `python -m tests.docs.etcd_flags`; a test keeps the two alike.

- What is **done** sets an option of `connect-kv serve` ([configuration](configuration.md)).
- What has **no meaning** here is named once in a warning, where it asks for what is not so anyway.
- What is **refused** is a promise that could not be kept: the program ends with exit code 2 and names it.

As in etcd: the file counts alone; certificates count only where the URLs are `https`; where there is
`--listen-client-urls` there must be `--advertise-client-urls`. Other than in etcd: several URLs for clients
are all listened on, and have one scheme; members have one URL for each other; the log has a line of JSON for
each event, in words of our own, and says `ready to serve client requests` once there is a leader. With
`Type=notify` systemd is told when it listens. A data directory of an etcd is refused, and not touched:
[move in](moving-from-etcd.md).
"""


def page() -> str:
    """The whole page."""
    titles = {FlagFate.DONE: "Done", FlagFate.IDLE: "No meaning", FlagFate.REFUSED: "Refused"}
    return HEAD + "".join(
        f"\n## {title}\n| flag | {'what it sets' if fate is FlagFate.DONE else 'why'} |\n|---|---|\n"
        + "\n".join(_row(flag) for flag in FLAGS.values() if flag.fate is fate)
        + "\n"
        for fate, title in titles.items()
    )


def _row(flag: Flag) -> str:
    asks = [f"`{value}`" if len(value) < 20 else "the default" for value in flag.quiet if value]
    quiet = f"; {', '.join(dict.fromkeys(asks))}: nothing to say" if asks and flag.about else ""
    return f"| `--{flag.name}` | {flag.about or 'nothing follows from it'}{quiet} |"


if __name__ == "__main__":
    PAGE.write_text(page())
