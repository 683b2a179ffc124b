"""A session of async-etcd3gw: ``async_program.py PORT``; ends with 0 if all is as it should be."""

import asyncio
import sys

from async_etcd3gw import AsyncEtcd3Client


async def main(port: int) -> None:
    async with AsyncEtcd3Client(host="127.0.0.1", port=port, timeout=10) as client:
        assert (await client.status())["version"].startswith("3.")
        assert len(await client.members()) >= 1
        await client.put("a/1", "one")
        await client.put("a/2", "two")
        assert await client.get("a/1") == [b"one"]
        assert sorted(value for value, _ in await client.get_prefix("a/")) == [b"one", b"two"]
        assert await client.create("a/3", "three")
        assert not await client.create("a/3", "again")
        assert await client.replace("a/3", "three", "drei")
        assert not await client.replace("a/3", "three", "vier")
        assert await client.delete("a/3")

        lease = await client.lease(ttl=30)
        await client.put("leased", "x", lease=lease)
        assert await lease.keys() == [b"leased"]
        assert await lease.refresh() == 30
        assert 0 < await lease.ttl() <= 30
        # lease.revoke() of this client sends nothing: findings/async-etcd3gw-revoke-sends-nothing.sh

        lock = await client.lock(id="one", ttl=30)
        other = await client.lock(id="one", ttl=30)
        assert await lock.acquire()
        assert not await other.acquire()
        assert await lock.release()
        assert await other.acquire()

        events, cancel = await client.watch("watched")
        for number in range(5):
            await client.put("watched", str(number))
        seen = []
        async for event in events:
            seen.append(event["kv"]["value"])
            if len(seen) == 5:
                break
        await cancel()
        assert seen == [b"0", b"1", b"2", b"3", b"4"], seen
    print("OK")


asyncio.run(main(int(sys.argv[1])))
