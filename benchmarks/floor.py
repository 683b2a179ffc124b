"""An empty grpc.aio handler under the name of Put and Range."""

from __future__ import annotations

import asyncio
import sys

import grpc
import uvloop


async def serve(port: int) -> None:
    """Answer everything with nothing, until killed."""

    async def nothing(request: bytes, context: object) -> bytes:
        return b""

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(nothing)
    handlers = {"Put": handler, "Range": handler}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("etcdserverpb.KV", handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
