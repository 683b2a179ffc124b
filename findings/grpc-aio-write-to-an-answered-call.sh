#!/usr/bin/env bash
# grpcio 1.85.0, its asyncio client: a server may answer a call whose client still sends. The next write() then raises
# AioRpcError with the code INTERNAL ("Internal error from Core"), although the call has ended with OK and its answer
# is there: awaiting the call gives it. Who takes the error of write() for that of the call repeats what is done.
#
# Expected: write() raises what the call ended with, or says that it has ended; never another code.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check grpcio==1.85.0
GRPC_VERBOSITY=NONE "$dir/venv/bin/python" - <<'PYTHON'
import asyncio
import sys
from collections import Counter

import grpc
import grpc.aio


async def answer_the_first(requests, context):
    async for _ in requests:
        return b"answer"


async def once(channel):
    call = channel.stream_unary("/test.Test/Early")()
    written = "nothing"
    try:
        for _ in range(1000):
            await call.write(b"x" * 100)
    except grpc.aio.AioRpcError as error:
        written = error.code().name
    try:
        ended = (await call).decode()
    except grpc.aio.AioRpcError as error:
        ended = error.code().name
    return f"write() raised {written}, the call gave {ended!r} with {(await call.code()).name}"


async def main():
    handler = grpc.stream_unary_rpc_method_handler(answer_the_first)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", {"Early": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        found = Counter([await once(channel) for _ in range(50)])
    await server.stop(None)
    for what, times in found.most_common():
        print(f"{times} of 50: {what}")
    return found["write() raised INTERNAL, the call gave 'answer' with OK"] > 25


sys.exit(0 if asyncio.run(main()) else 1)
PYTHON
