"""gRPC over HTTP/2, both sides of it: cores without socket, loop or clock, and their shells under asyncio.

`listener.Server` serves calls in batches, `channel.Channel` makes them. The decision and the interface:
docs/decisions/a-front-door-of-our-own.md.
"""
