"""An SSH server that misbehaves, built on the PyPI package `asyncssh`.

It lets every public key in. Once the client has asked for a forward, it opens
towards the client one channel of each type that an SSH server may try, and
prints what came of it. It prints one JSON object a line:

  {"port": N}                         listening on 127.0.0.1
  {"login": USER}
  {"forward": [HOST, PORT]}           what the client asked to be published
  {"channel": NAME, "accepted": BOOL, "code": N | null}
  {"done": true}                      every channel was tried
"""

import argparse
import asyncio
import json

import asyncssh
from asyncssh.packet import String, UInt32


def tell(**what):
    print(json.dumps(what), flush=True)


def tcp(host, port):
    """The addresses of a direct-tcpip or forwarded-tcpip channel, RFC 4254 section 7.2."""
    return String(host) + UInt32(port) + String("127.0.0.1") + UInt32(50000)


class Server(asyncssh.SSHServer):
    def __init__(self, canary, announced):
        self.canary = canary
        self.announced = announced

    def connection_made(self, conn):
        self.conn = conn

    def begin_auth(self, username):
        self.username = username
        return True

    def public_key_auth_supported(self):
        return True

    def validate_public_key(self, username, key):
        return True

    def auth_completed(self):
        tell(login=self.username)
        if self.announced:
            # asyncssh announces these next. It will sign the proof for the foreign key with its own.
            keys = self.conn._all_server_host_keys
            keys[asyncssh.read_public_key(self.announced).public_data] = next(iter(keys.values()))

    def server_requested(self, listen_host, listen_port):
        tell(forward=[listen_host, listen_port])
        self.attempts = asyncio.ensure_future(self.try_channels(listen_host, listen_port))
        return True

    async def try_channels(self, host, port):
        # After the answer to the client's request has gone out.
        await asyncio.sleep(0.2)
        unasked = port + 1 if port < 65535 else port - 1
        await self.attempt("session", b"session")
        await self.attempt("direct-tcpip", b"direct-tcpip", tcp("127.0.0.1", self.canary))
        await self.attempt("forwarded-tcpip, another port", b"forwarded-tcpip", tcp(host, unasked))
        await self.attempt("forwarded-tcpip, the target's port", b"forwarded-tcpip", tcp(host, self.canary))
        await self.attempt("forwarded-tcpip, another address", b"forwarded-tcpip", tcp("203.0.113.9", port))
        await self.attempt("forwarded-tcpip, port above 65535", b"forwarded-tcpip", tcp(host, port + 65536))
        await self.attempt(
            "forwarded-streamlocal",
            b"forwarded-streamlocal@openssh.com",
            String("/run/unasked.sock") + String(""),
        )
        await self.attempt(
            "direct-streamlocal",
            b"direct-streamlocal@openssh.com",
            String("/run/unasked.sock") + String("") + UInt32(0),
        )
        await self.attempt("x11", b"x11", String("127.0.0.1") + UInt32(6000))
        await self.attempt("auth-agent", b"auth-agent@openssh.com")
        await self.attempt("unknown type", b"nonsense@example.com")
        await self.attempt("forwarded-tcpip, as asked", b"forwarded-tcpip", tcp(host, port))
        tell(done=True)

    async def attempt(self, name, kind, *arguments):
        channel = self.conn.create_tcp_channel()
        try:
            await asyncio.wait_for(channel._open(kind, *arguments), 10)
            tell(channel=name, accepted=True, code=None)
        except asyncssh.ChannelOpenError as refused:
            tell(channel=name, accepted=False, code=refused.code)


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--host-key", required=True)
    arguments.add_argument("--canary", type=int, required=True, help="a local port that must not be reached")
    arguments.add_argument("--announce", help="a public key to announce beside its own, and to prove wrongly")
    options = arguments.parse_args()
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=lambda: Server(options.canary, options.announce),
        server_host_keys=[options.host_key],
        send_server_host_keys=options.announce is not None,
    )
    tell(port=server.sockets[0].getsockname()[1])
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
