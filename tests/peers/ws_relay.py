"""A WebSocket relay as one writes it in an afternoon, on the PyPI package `websockets`: what the benchmark of the
bridge measures itself against.

Each client's connection gets one of its own to the same path of the server; messages go from one to the other. The
first line it prints is {"port": N}.
"""

import argparse
import asyncio
import json

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

PLAIN = {"compression": None, "ping_interval": None, "subprotocols": ["ocpp1.6"]}


async def pass_on(source, destination):
    async for message in source:
        await destination.send(message)
    await destination.close()


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--to", required=True, help="the server's URL, without the path")
    to = arguments.parse_args().to

    async def relay(client):
        async with connect(to + client.request.path, proxy=None, **PLAIN) as server:
            await asyncio.gather(pass_on(client, server), pass_on(server, client))

    async with serve(relay, "127.0.0.1", 0, **PLAIN) as listener:
        print(json.dumps({"port": listener.sockets[0].getsockname()[1]}), flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main())
