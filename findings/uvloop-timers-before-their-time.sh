#!/usr/bin/env bash
# uvloop 0.22.1: call_later() rounds its delay to whole milliseconds, up or down, and up to half a millisecond is none:
# what should run 0.4 ms later runs at once, and what should run 2.4 ms later runs up to 0.4 ms early. Who looks at a
# clock when such a timer fires finds that its time has not come. asyncio's own loop is never early.
#
# Expected: a timer fires when its delay has passed, or later.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check uvloop==0.22.1
"$dir/venv/bin/python" - <<'PYTHON'
import asyncio
import sys
import time

import uvloop

TIMERS = 200


async def early(delay):
    """How many of the timers fire more than a tenth of a millisecond before their time."""
    loop, found = asyncio.get_running_loop(), 0
    for _ in range(TIMERS):
        fired = loop.create_future()
        begun = time.perf_counter()
        loop.call_later(delay, fired.set_result, None)
        await fired
        found += time.perf_counter() - begun < delay - 0.0001
    return found


found = {}
for delay in (0.0004, 0.0024):
    found["uvloop", delay] = uvloop.run(early(delay))
    found["asyncio", delay] = asyncio.run(early(delay))
    for name in ("asyncio", "uvloop"):
        print(f"{name}: {found[name, delay]} of {TIMERS} timers of {delay * 1000} ms fired early")
uvloops = [count for (name, _), count in found.items() if name == "uvloop"]
sys.exit(0 if min(uvloops) > TIMERS / 2 and sum(found.values()) == sum(uvloops) else 1)
PYTHON
