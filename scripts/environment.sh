# Sourced by the other scripts: makes .venv with this project in it, once for each state of pyproject.toml.
#   make_environment EXTRAS    EXTRAS: empty, or e.g. "dev"
# Ends the script with one line that says what to install when the machine cannot run the project.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${CONNECT_KV_VENV:-$root/.venv}

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3.14 python3 python; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "connect-kv needs Python 3.11 to 3.14 and found $(python3 --version 2>&1 || echo none); install it, or name it: PYTHON=/path/to/python3.11 $0" >&2
  return 2
}

# First, and alone, for not every machine has a wheel of it; elsewhere it is compiled.
install_leveldb_binding() {
  local pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check) bindings said
  mapfile -t bindings < <("$venv/bin/python" -c 'import sys, tomllib
with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
wanted = project["dependencies"] + project["optional-dependencies"]["leveldb"]
print(*(one for one in wanted if one.startswith("plyvel")), sep="\n")' "$root/pyproject.toml")
  if said=$("${pip[@]}" --only-binary :all: "${bindings[@]}" 2>&1) || said+=$("${pip[@]}" "${bindings[@]}" 2>&1); then return; fi
  if grep -qE 'NewConnectionError|ConnectTimeout|ProxyError|SSLError|NameResolutionError' <<<"$said"; then
    echo "pip cannot reach its index of packages (see: $venv/bin/python -m pip download plyvel): connect it to the network, or name an index: PIP_INDEX_URL=..., then run this again" >&2
  else
    echo "no wheel of plyvel (LevelDB for Python) fits this machine: install LevelDB's headers and a C++ compiler (Debian and Ubuntu: apt-get install libleveldb-dev g++ python3-dev; Fedora: dnf install leveldb-devel gcc-c++ python3-devel; macOS: brew install leveldb), then run this again" >&2
  fi
  exit 2
}

make_environment() {
  local extras=${1:-} python stamp wanted
  python=$(find_python) || exit 2
  stamp=$venv/.installed-${extras:-run}
  wanted=$(cat "$root/pyproject.toml"; "$python" --version; echo "$extras")
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return; fi
  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv "$venv" || {
      echo "connect-kv needs Python's venv module (Debian and Ubuntu: apt-get install python3-venv)" >&2
      exit 2
    }
  fi
  echo "installing into ${venv#"$PWD"/} ..." >&2
  install_leveldb_binding
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root${extras:+[$extras]}" || exit 2
  printf '%s' "$wanted" >"$stamp"
}
