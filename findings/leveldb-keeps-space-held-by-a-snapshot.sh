#!/usr/bin/env bash
# plyvel 1.5.1, with the LevelDB of its wheel: the space of keys that were deleted and compacted while a snapshot was
# open does not come back once the snapshot is closed, however often compact_range() is called for the range. A
# deletion of an absent key within the range of the tables makes the next compact_range() give it back; one just
# outside of it does not.
#
# Expected: compact_range() drops deleted values that no snapshot can see.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check plyvel==1.5.1
"$dir/venv/bin/python" - "$dir" <<'PYTHON'
import os
import sys
import plyvel

KEYS, VALUE = 60_000, os.urandom(500)
path = os.path.join(sys.argv[1], "db")
db = plyvel.DB(path, create_if_missing=True, compression=None)


def size():
    return sum(file.stat().st_size for file in os.scandir(path)) / 2**20


def compact(says):
    db.compact_range(start=b"a", stop=b"z")
    print(f"{size():6.1f} MiB  {says}")
    return size()


for number in range(KEYS):
    db.put(b"k%08d" % number, VALUE)
snapshot = db.snapshot()
for number in range(KEYS):
    db.delete(b"k%08d" % number)
held = compact("all keys deleted, compacted under a snapshot")
snapshot.close()
compact("the snapshot closed, compacted again")
kept = compact("and again")
db.delete(b"a")
db.delete(b"y")
compact("absent keys deleted on both sides of the tables, compacted")
db.delete(b"k00000000a")
db.delete(b"k%08da" % (KEYS - 2))
inside = compact("absent keys deleted within the tables, compacted")
print("plyvel", plyvel.__version__)
assert held > 25 and kept > 25, "the space comes back by itself now"
assert inside < 1, "it does not come back this way any more"
PYTHON
