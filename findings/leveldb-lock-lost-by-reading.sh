#!/usr/bin/env bash
# plyvel 1.5.1, with the LevelDB 1.22 of its wheel (plyvel-next 2.1.2 with 1.23 alike): a program that copies the
# directory of a database which it has open gives the database's lock away. The lock is one of POSIX: it ends as soon
# as the process closes any descriptor of the file LOCK, and a copy opens and closes that, too. From then on another
# process may open the same database for writing; before, it was refused. Neither side is told.
#
# Expected: the database stays locked for as long as it is open.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
binding=plyvel version=1.5.1
"$dir/venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 13))' && binding=plyvel_next version=2.1.2
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check "${binding/_/-}==$version"
cat > "$dir/other.py" <<'PYTHON'
import importlib
import sys

binding = importlib.import_module(sys.argv[1])
try:
    binding.DB(sys.argv[2]).close()
    print("opened")
except binding.IOError:
    print("refused")
PYTHON
"$dir/venv/bin/python" - "$binding" "$dir" <<'PYTHON'
import importlib
import shutil
import subprocess
import sys

name, place = sys.argv[1:]
database = importlib.import_module(name).DB(f"{place}/database", create_if_missing=True)


def other_process():
    command = [sys.executable, f"{place}/other.py", name, f"{place}/database"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


before = other_process()
shutil.copytree(f"{place}/database", f"{place}/copy")
after = other_process()
print(f"{name}: another process is {before} before the copy, and has {after} the database after it")
sys.exit(0 if (before, after) == ("refused", "opened") else 1)
PYTHON
