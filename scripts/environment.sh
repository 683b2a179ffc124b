# Sourced by the other scripts: makes .venv with this project in it, once for each state of pyproject.toml.
#   make_environment EXTRAS    EXTRAS: empty, or e.g. "dev"
# Ends the script with one line that says what to install when the machine cannot run the project.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${CONNECT_KV_VENV:-$root/.venv}

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.11 python3.12 python3 python; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "connect-kv needs Python 3.11 or 3.12 and found $(python3 --version 2>&1 || echo none); install it, or name it: PYTHON=/path/to/python3.11 $0" >&2
  return 2
}

make_environment() {
  local extras=${1:-} python stamp wanted
  python=$(find_python) || exit 2
  stamp=$venv/.installed-${extras:-run}
  wanted=$(cat "$root/pyproject.toml"; "$python" --version; echo "$extras")
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return; fi
  if [ ! -x "$venv/bin/python" ]; then
    "$python" -m venv "$venv" || {
      echo "connect-kv needs Python's venv module (Debian and Ubuntu: apt-get install python3-venv)" >&2
      exit 2
    }
  fi
  echo "installing into ${venv#"$PWD"/} ..." >&2
  if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary plyvel 'plyvel>=1.5.1,<2' >/dev/null 2>&1 &&
    ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'plyvel>=1.5.1,<2' >/dev/null 2>&1; then
    echo "no wheel of plyvel (LevelDB for Python) fits this machine: install LevelDB's headers and a C++ compiler (Debian and Ubuntu: apt-get install libleveldb-dev g++ python3-dev; Fedora: dnf install leveldb-devel gcc-c++ python3-devel; macOS: brew install leveldb), then run this again" >&2
    exit 2
  fi
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root${extras:+[$extras]}" || exit 2
  printf '%s' "$wanted" >"$stamp"
}
