#!/usr/bin/env bash
# uvloop 0.23.0: where ResourceWarning is an error, as test suites have it, a loop that is closed while a
# server still listens never returns from close(). The warning about the open handle is raised in the walk that closes
# handles, before this one is closed; then the loop is run until every handle is.
#
# Expected: close() returns, and says what was left open, as it does where warnings are only shown.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check uvloop==0.23.0
cat >"$dir/program.py" <<'PYTHON'
import asyncio
import uvloop

loop = uvloop.new_event_loop()
loop.run_until_complete(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
loop.close()
print("closed")
PYTHON
run() { timeout 10 "$dir/venv/bin/python" "$@" "$dir/program.py" 2>&1 | tail -1; }
echo "warnings shown:  $(run -W default::ResourceWarning)"
errors=$(run -W error::ResourceWarning || true)
echo "warnings errors: $errors (after 10 seconds)"
[ "$errors" != closed ] || { echo "it returns now"; exit 1; }
