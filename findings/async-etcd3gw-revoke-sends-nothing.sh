#!/usr/bin/env bash
# async-etcd3gw 0.8: AsyncLease.revoke() sends no request and returns True, so that the lease and the keys attached to
# it live on until the lease runs out. Its documentation says that it asks etcd to revoke the lease, as etcd3gw's does.
#
# Expected: one request to /v3/kv/lease/revoke, or /v3/lease/revoke, with the lease's id.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check async-etcd3gw==0.8
"$dir/venv/bin/python" - <<'PYTHON'
import asyncio
import sys

from aiohttp import web
from async_etcd3gw import AsyncEtcd3Client


async def main():
    asked = []

    async def answer(request):
        asked.append(f"{request.path} {(await request.read()).decode()}")
        return web.json_response({"ID": "7", "TTL": "30"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    async with AsyncEtcd3Client(host="127.0.0.1", port=port) as client:
        lease = await client.lease(ttl=30)
        before = len(asked)
        said = await lease.revoke()
    await runner.cleanup()
    print(f"revoke() returned {said} after {len(asked) - before} requests; those before it: {asked}")
    return len(asked) - before


sys.exit(0 if asyncio.run(main()) == 1 else 1)
PYTHON
