"""Sends one message: python client.py set ada 4711; python client.py get ada."""

import asyncio
import sys

import connect_kv
from connect_kv import CALLBACKS, Messages

ENDPOINTS = "127.0.0.1:2379,127.0.0.1:22379,127.0.0.1:32379"


async def main(message: str) -> None:
    async with connect_kv.connect(ENDPOINTS) as client:
        service = client.machine(CALLBACKS, Messages)
        answer = await service.call(Messages.send, message.encode())
        print(answer.decode())


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:])))
