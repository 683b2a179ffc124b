"""version: of this software, and of the API it speaks."""

from __future__ import annotations

import platform
from importlib.metadata import version as version_of

import click

from connect_kv.cli import output
from connect_kv.cli.settings import LocalCommand, Settings, pass_settings

ETCD_API = "3.6"
"""What a member tells clients that ask for etcd's version, without the last number."""


@click.command(cls=LocalCommand)
@pass_settings
def version(settings: Settings) -> None:
    """Print the version of this software; `connect-kv status` prints those of the members."""
    facts = {
        "connect_kv": version_of("connect-kv"),
        "etcd_api": ETCD_API,
        "python": platform.python_version(),
    }
    lines = [f"connect-kv {facts['connect_kv']}", f"API of etcd {ETCD_API}, Python {facts['python']}"]
    output.show(settings.output, facts, lines, ["what", "version"], list(facts.items()))
