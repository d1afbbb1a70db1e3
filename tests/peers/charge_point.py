"""A charge controller for the tests, built on the PyPI packages `ocpp` and `websockets`.

charge_point.mjs is another, which takes the same options and commands.

It connects, comes back whenever the connection is lost, and boots over each connection. It is
told what to do by lines of JSON on stdin, and answers each with one line of JSON on stdout, in
order. The first line it prints is {"answer": {}}.

  {"do": "call", "action": A, "payload": P}   a CALL; the payload in snake case
  {"do": "say", "text": T, "until": I}        send T as it is; the answer to the CALL I, if one is named
  {"do": "counts"}                            connections, refused, lost, connected
  {"do": "wait", "for": C, "count": N, "seconds": S}  until the count C is at least N
  {"do": "frames"}                            every frame received, as text
  {"do": "transcript"}                        a line for each text, received and sent
  {"do": "endings"}                           how each connection, or try, ended: {"code", "reason"} or {"status"}
  {"do": "subprotocol"}                       that of the connection
  {"do": "close", "code": N, "reason": R}     close the connection, and stay away
  {"do": "connect"}                           come back

Answers are those of csms.py.
"""

import argparse
import asyncio
import base64
import json
import ssl
import sys
from urllib.parse import quote

import ocpp.v16
import ocpp.v16.call
import ocpp.v16.call_result
import ocpp.v21
import ocpp.v21.call
import ocpp.v201
import ocpp.v201.call
from ocpp.exceptions import OCPPError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from transcript import transcript

ANSWER_SECONDS = 20
RECONNECT_SECONDS = 0.1
VERSIONS = {"ocpp1.6": ocpp.v16, "ocpp2.0.1": ocpp.v201, "ocpp2.1": ocpp.v21}
BOOT_16 = {"charge_point_vendor": "ACME", "charge_point_model": "Wallbox 3000", "firmware_version": "1.2.3"}
BOOT_2 = {"charging_station": {"vendor_name": "ACME", "model": "Wallbox 3000"}, "reason": "PowerUp"}
# What it is asked over OCPP 1.6, and what it answers. Over later versions it can't do anything.
ANSWERS = {
    "CancelReservation": {"status": "Rejected"},
    "ChangeAvailability": {"status": "Scheduled"},
    "ClearCache": {"status": "Accepted"},
    "ClearChargingProfile": {"status": "Unknown"},
    "DataTransfer": {"status": "Accepted", "data": "señal ✓"},
    "GetCompositeSchedule": {"status": "Rejected"},
    "GetDiagnostics": {"file_name": "diagnostics.zip"},
    "GetLocalListVersion": {"list_version": 7},
    "RemoteStartTransaction": {"status": "Accepted"},
    "RemoteStopTransaction": {"status": "Accepted"},
    "ReserveNow": {"status": "Occupied"},
    "Reset": {"status": "Rejected"},
    "SendLocalList": {"status": "Accepted"},
    "SetChargingProfile": {"status": "Accepted"},
    "TriggerMessage": {"status": "NotImplemented"},
    "UnlockConnector": {"status": "Unlocked"},
    "UpdateFirmware": {},
}


class Wire:
    """The WebSocket under the library: what passes is kept."""

    def __init__(self, connection, controller):
        self.connection = connection
        self.controller = controller

    async def recv(self):
        text = await self.connection.recv()
        self.controller.received.append(text)
        self.controller.settle(text)
        return text

    async def send(self, text):
        self.controller.sent.append(text)
        await self.connection.send(text)


class Controller:
    def __init__(self, options):
        self.identity = options.identity
        self.url = f"{options.endpoint}/{quote(options.identity, safe='')}"
        self.protocols = options.protocols.split(",")
        self.tls = ssl.create_default_context(cafile=options.ca) if options.ca else None
        self.headers = {}
        if options.password:
            credentials = self.identity.encode() + b":" + bytes.fromhex(options.password)
            self.headers["Authorization"] = f"Basic {base64.b64encode(credentials).decode()}"
        self.configuration = {"HeartbeatInterval": "300", "NumberOfConnectors": "2", "Ünïcode": "täst ⚡"}
        self.received, self.sent, self.endings, self.asked = [], [], [], {}
        self.counts = {"connections": 0, "refused": 0, "lost": 0, "boots": 0}
        self.changed = asyncio.Condition()
        self.wire = self.station = self.version = self.living = None

    # --- the CSMS's side ---

    async def live(self):
        """Connects, again and again."""
        while True:
            try:
                await self.connect_once()
            except InvalidStatus as why:
                self.endings.append({"status": why.response.status_code})
                await self.count("refused")
            except (OSError, ConnectionClosed, InvalidHandshake, InvalidMessage, TimeoutError) as why:
                print(f"no connection: {why!r}", file=sys.stderr, flush=True)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def connect_once(self):
        options = {"subprotocols": self.protocols, "additional_headers": self.headers, "proxy": None}
        async with connect(self.url, ssl=self.tls, **options) as connection:
            self.wire = Wire(connection, self)
            self.station = self.station_for(connection.subprotocol)
            await self.count("connections")
            booting = asyncio.create_task(self.boot())
            try:
                await self.station.start()
            except ConnectionClosed as why:
                said = why.rcvd
                self.endings.append({"code": said.code if said else 1006, "reason": said.reason if said else ""})
                await self.count("lost")
            finally:
                self.wire = self.station = None
                booting.cancel()

    def station_for(self, subprotocol):
        self.version = VERSIONS[subprotocol]
        station = self.version.ChargePoint(self.identity, self.wire, ANSWER_SECONDS)
        if self.version is ocpp.v16:
            for action, answer in ANSWERS.items():
                answer = getattr(ocpp.v16.call_result, action)(**answer)
                station.route_map[action] = {"_on_action": lambda answer=answer, **_: answer}
            station.route_map["GetConfiguration"] = {"_on_action": self.get_configuration}
            station.route_map["ChangeConfiguration"] = {"_on_action": self.change_configuration}
        return station

    def get_configuration(self, key=None, **_):
        wanted = key or list(self.configuration)
        entries = [
            {"key": name, "readonly": name == "NumberOfConnectors", "value": self.configuration[name]}
            for name in wanted
            if name in self.configuration
        ]
        unknown = [name for name in wanted if name not in self.configuration]
        return ocpp.v16.call_result.GetConfiguration(entries, unknown)

    def change_configuration(self, key, value):
        known = key in self.configuration
        if known:
            self.configuration[key] = value
        return ocpp.v16.call_result.ChangeConfiguration("Accepted" if known else "NotSupported")

    async def boot(self):
        payload = BOOT_16 if self.version is ocpp.v16 else BOOT_2
        await self.station.call(self.version.call.BootNotification(**payload))
        await self.count("boots")

    async def count(self, name):
        async with self.changed:
            self.counts[name] += 1
            self.changed.notify_all()

    def settle(self, text):
        """Whoever waits for this answer has it."""
        try:
            frame = json.loads(text)
        except (ValueError, RecursionError):
            return
        match frame:
            case [3 | 4, str(unique), *_] if unique in self.asked:
                self.asked.pop(unique).set_result(frame)

    # --- the test's side ---

    async def do(self, request):
        match request["do"]:
            case "counts":
                return {"answer": self.counts | {"connected": self.wire is not None}}
            case "wait":
                reached = lambda: self.counts[request["for"]] >= request["count"]
                async with self.changed:
                    await asyncio.wait_for(self.changed.wait_for(reached), request["seconds"])
                return {"answer": self.counts}
            case "frames":
                return {"answer": self.received}
            case "transcript":
                return {"answer": transcript(self.received, self.sent)}
            case "endings":
                return {"answer": self.endings}
            case "connect":
                self.living = asyncio.create_task(self.live())
                return {"answer": {}}
        if self.wire is None:
            return {"failed": "not connected"}
        match request["do"]:
            case "call":
                return await self.call(request["action"], request["payload"])
            case "say":
                return {"answer": await self.say(request["text"], request.get("until"))}
            case "subprotocol":
                return {"answer": self.wire.connection.subprotocol}
            case "close":
                living, self.living = self.living, None
                await self.wire.connection.close(request.get("code", 1000), request.get("reason", ""))
                living.cancel()
                return {"answer": {}}
        return {"failed": f"unknown command {request['do']}"}

    async def call(self, action, payload):
        message = getattr(self.version.call, action)(**payload)
        try:
            answer = await self.station.call(message, suppress=False, skip_schema_validation=True)
        except OCPPError as error:
            return {"error": {"code": error.code, "description": error.description}}
        return {"answer": {name: value for name, value in vars(answer).items() if value is not None}}

    async def say(self, text, until):
        if until is None:
            return await self.wire.send(text)
        self.asked[until] = asyncio.get_running_loop().create_future()
        waiting = self.asked[until]
        await self.wire.send(text)
        return await asyncio.wait_for(waiting, ANSWER_SECONDS)


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--endpoint", required=True, help="the URL without the identity")
    arguments.add_argument("--identity", required=True)
    arguments.add_argument("--password", default="", help="in hexadecimal")
    arguments.add_argument("--protocols", default="ocpp1.6")
    arguments.add_argument("--ca", help="the certificate authority to trust")
    controller = Controller(arguments.parse_args())
    await controller.do({"do": "connect"})
    print(json.dumps({"answer": {}}), flush=True)

    commands = asyncio.StreamReader(limit=2**20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        try:
            answer = await controller.do(json.loads(line))
        except (asyncio.TimeoutError, TimeoutError):
            answer = {"failed": "no answer in time"}
        except Exception as why:  # reported to the test, which knows what to make of it
            answer = {"failed": repr(why)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
