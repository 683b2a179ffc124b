"""A process of its own that reads one key again and again: ``prober.py HOST:PORT KEY``.

Prints READY after the first answer; ends with the next line it is given, and prints the longest wait in ms.
"""

from __future__ import annotations

import sys
import threading
import time

import grpc

from connect_kv.rpc.kv_pb2 import RangeRequest, RangeResponse


def main(address: str, key: str) -> None:
    get = grpc.insecure_channel(address).unary_unary(
        "/etcdserverpb.KV/Range",
        request_serializer=RangeRequest.SerializeToString,
        response_deserializer=RangeResponse.FromString,
    )
    request = RangeRequest(key=key.encode(), serializable=True)
    get(request, timeout=60)
    print("READY", flush=True)
    told = threading.Thread(target=sys.stdin.readline, daemon=True)
    told.start()
    longest = 0.0
    while told.is_alive():
        began = time.perf_counter()
        get(request, timeout=60)
        longest = max(longest, time.perf_counter() - began)
    print(round(longest * 1000), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
