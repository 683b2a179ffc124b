"""etcd: what a compose file, a unit or a chart starts, with etcd's own flags."""

from __future__ import annotations

import os
from dataclasses import replace

import click

from connect_kv.cli.serve import run_node


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]},
    add_help_option=True,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[FLAGS OF ETCD]...")
def etcd(arguments: tuple[str, ...]) -> None:
    """Run one node by etcd's flags, its environment (ETCD_*) or its YAML file (--config-file).

    So whatever starts an etcd starts this, with the name of the program changed. A flag that has no meaning
    here is named in a warning; one whose promise cannot be kept is refused. All of them: docs/etcd-flags.md.
    Variables that begin with CONNECT_KV_ do not count.
    Data directories of an etcd are not taken over by this: `connect-kv import-etcd` does that.
    """
    from connect_kv.cli import etcd_options
    from connect_kv.config import load
    from connect_kv.errors import RefusedToStart

    values, warnings = etcd_options.given(arguments, os.environ)
    if values.get("version") == "true":
        from connect_kv.services.maintenance import ETCD_VERSION

        click.echo(f"etcd Version: {ETCD_VERSION}\nconnect-kv")
        return
    told = etcd_options.translate(values)
    config = replace(load(told.options, {}), also_listen_client=told.also_listen)
    if (config.data_dir / "member").is_dir():
        raise RefusedToStart(
            f"{config.data_dir}: is the data directory of an etcd: move in with"
            f" `connect-kv import-etcd {config.data_dir} --data-dir NEW`, and name that directory"
        )
    run_node(config, [*warnings, *told.warnings])
