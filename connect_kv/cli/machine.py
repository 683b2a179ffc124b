"""call: commands and queries of replicated machines."""

from __future__ import annotations

import json

import click

from connect_kv.cli import output
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.client.messages import MachineDescription, MethodDescription


@click.command(cls=ClusterCommand)
@click.argument("machine", required=False)
@click.argument("method", required=False)
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--json", "json_arguments", metavar="OBJECT", help="All arguments as one JSON object.")
@pass_settings
def call(
    settings: Settings,
    machine: str | None,
    method: str | None,
    arguments: tuple[str, ...],
    json_arguments: str | None,
) -> None:
    """Call METHOD of MACHINE; without METHOD, list what can be called.

    A VALUE is JSON if it can be read so, else text: by=5, name=Ada, tags='["a", "b"]'.
    """
    if machine is None or method is None:
        _describe(settings, machine or "")
        return
    given = encoded(arguments, json_arguments)
    value = settings.run(lambda client: client.call_json(machine, method, given))
    decoded = json.loads(value)
    line = decoded if isinstance(decoded, str) else value
    columns = ["machine", "method", "value"]
    output.show(settings.output, {"value": decoded}, [line], columns, [[machine, method, value]])


def encoded(arguments: tuple[str, ...], json_arguments: str | None) -> str:
    """The arguments as a JSON object. Raises UsageError."""
    if json_arguments is not None:
        if arguments:
            raise click.UsageError("give either NAME=VALUE or --json")
        return json_arguments
    found: dict[str, object] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{argument!r}: expected NAME=VALUE")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
    return json.dumps(found)


def _describe(settings: Settings, machine: str) -> None:
    machines = settings.run(lambda client: client.describe_machines(machine))
    if settings.output == "json":
        output.as_json([_as_json(one) for one in machines])
        return
    rows = [
        [one.name, method.name, "query" if method.query else "command", signature(method), _first(method.doc)]
        for one in machines
        for method in one.methods
    ]
    output.as_table(["machine", "method", "kind", "signature", "what it does"], rows)


def signature(method: MethodDescription) -> str:
    """Parameters and result as Python writes them."""
    parameters = ", ".join(
        f"{parameter.name}: {parameter.type}" + ("" if parameter.required else " = ...")
        for parameter in method.parameters
    )
    return f"({parameters}) -> {method.returns}"


def _first(doc: str) -> str:
    return doc.strip().split("\n", 1)[0]


def _as_json(machine: MachineDescription) -> dict[str, object]:
    return {
        "name": machine.name,
        "doc": machine.doc,
        "methods": [
            {
                "name": method.name,
                "kind": "query" if method.query else "command",
                "doc": method.doc,
                "parameters": [
                    {"name": parameter.name, "type": parameter.type, "required": parameter.required}
                    for parameter in method.parameters
                ],
                "returns": method.returns,
            }
            for method in machine.methods
        ],
    }
