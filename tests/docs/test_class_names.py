"""A class is found by its name: no two of the package have the same one."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parent.parent.parent / "connect_kv"

BLOCKING = ("sync.py", "sync_auth.py")
"""Classes of the blocking client are named as those of the asynchronous one that they stand before: whoever
changes from one to the other changes an import and nothing else."""

ALIKE = {"Lock"}
"""`connect_kv.types.Lock` is a replicated class, `client.lock()` gives etcd's: both are what everybody calls
a lock, and neither can give up the name that its users write."""


def places() -> dict[str, list[str]]:
    """The files in which each class name is defined, generated and private ones left out."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent.name == "rpc":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(PACKAGE)))
    return found


def test_no_two_classes_have_one_name() -> None:
    twice = {
        name: files
        for name, files in places().items()
        if len([file for file in files if file not in BLOCKING or not any("client/" in one for one in files)])
        > 1
    }
    assert not {name: files for name, files in twice.items() if name not in ALIKE}
