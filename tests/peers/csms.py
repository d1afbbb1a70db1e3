"""A CSMS for the tests, built on the PyPI packages `ocpp` (1.6) and `websockets`.

csms.mjs is another, which takes the same options and commands.

It is told what to do by lines of JSON on stdin, and answers each with one line
of JSON on stdout, in order. The first line it prints is {"port": N}.

  {"do": "change", "key": K, "value": V}  ChangeConfiguration
  {"do": "get", "keys": [K, ...]}         GetConfiguration; no keys: all of them
  {"do": "call", "action": A, "payload": P}   any other CALL
  {"do": "ask", "action": A, "payload": P}    a CALL with exactly this payload; the whole frame of its answer
  {"do": "raw", "text": T, "wait": S}     send T as it is; the frames that came within S seconds
  {"do": "counts"}                        connections, boots, refused, heartbeats, statuses, connected
  {"do": "wait", "for": C, "count": N, "seconds": S}  until the count C is at least N
  {"do": "frames"}                        every frame received, as text
  {"do": "boot", "status": S, "interval": I}  what the next BootNotification is answered
  {"do": "answer", "action": A, "with": W}   what DataTransfer and SecurityEventNotification are answered: a
                                          status ("Accepted"), or a CALLERROR's code ("NotSupported")
  {"do": "password", "hex": H}            the password from now on
  {"do": "say", "text": T, "until": I}    send T as it is; the answer to the CALL I, if one is named
  {"do": "transcript"}                    a line for each text, received and sent
  {"do": "endings"}                       how each connection ended: {"code", "reason"}
  {"do": "subprotocol"}                   that of the connection
  {"do": "drop", "code": N, "reason": R}  close the connection to the charge point

Answers: {"answer": payload}, {"error": {"code", "description"}} for a CALLERROR,
{"failed": why} where there is no connection or no answer.

Every frame that the charge point sends is held against the JSON schema of its
message. What doesn't fit goes to the file that --violations names.
"""

import argparse
import asyncio
import base64
import json
import ssl
import sys
import uuid
from datetime import datetime, timezone
from http import HTTPStatus
from urllib.parse import unquote

import ocpp.v21.call_result
import ocpp.v201.call_result
from ocpp import v21, v201
from ocpp.exceptions import OCPPError
from ocpp.routing import on
from ocpp.v16 import ChargePoint, call, call_result
from ocpp.v16.enums import Action, DataTransferStatus, RegistrationStatus
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from schemas import Checker
from transcript import transcript

ANSWER_SECONDS = 20


class Recorder:
    """A WebSocket connection that keeps a copy of every frame received, and checks it."""

    def __init__(self, connection, csms):
        self.connection = connection
        self.csms = csms
        self.checker = Checker(csms.violations)
        self.asked = {}

    async def recv(self):
        text = await self.connection.recv()
        self.csms.frames.append(text)
        # There are no schemas for later versions here.
        is_16 = self.connection.subprotocol == "ocpp1.6"
        frame = self.checker.received(text) if is_16 else None
        match frame:
            case [3 | 4, str(unique), *_] if unique in self.asked:
                self.asked.pop(unique).set_result(frame)
        return text

    async def send(self, text):
        self.checker.sent(text)
        self.csms.sent.append(text)
        await self.connection.send(text)

    async def ask(self, action, payload):
        """Sends a CALL as it is, and returns the frame of its answer."""
        unique = str(uuid.uuid4())
        return await self.say(json.dumps([2, unique, action, payload]), unique)

    async def say(self, text, until):
        """Sends a text, and returns the frame that answers the CALL `until`, unless that is None."""
        if until is None:
            return await self.send(text)
        waiting = self.asked[until] = asyncio.get_running_loop().create_future()
        await self.send(text)
        return await asyncio.wait_for(waiting, ANSWER_SECONDS)


class Session(ChargePoint):
    """One connection of the charge point."""

    def __init__(self, identity, connection, csms):
        super().__init__(identity, Recorder(connection, csms), ANSWER_SECONDS)
        self.csms = csms

    @on(Action.boot_notification)
    def on_boot(self, **_):
        self.csms.count("boots")
        return call_result.BootNotification(
            current_time=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            interval=self.csms.interval,
            status=RegistrationStatus(self.csms.boot_status),
        )

    @on(Action.heartbeat)
    def on_heartbeat(self):
        self.csms.count("heartbeats")
        return call_result.Heartbeat(current_time=datetime.now(timezone.utc).isoformat())

    @on(Action.authorize)
    def on_authorize(self, **_):
        return call_result.Authorize(id_tag_info={"status": "Accepted"})

    @on(Action.start_transaction)
    def on_start(self, **_):
        self.csms.transactions += 1
        return call_result.StartTransaction(self.csms.transactions, {"status": "Accepted"})

    @on(Action.stop_transaction)
    def on_stop(self, **_):
        return call_result.StopTransaction()

    @on(Action.meter_values)
    def on_meter_values(self, **_):
        return call_result.MeterValues()

    @on(Action.firmware_status_notification)
    def on_firmware_status(self, **_):
        return call_result.FirmwareStatusNotification()

    @on(Action.status_notification)
    def on_status(self, **_):
        self.csms.count("statuses")
        return call_result.StatusNotification()

    @on(Action.security_event_notification)
    def on_security_event(self, **_):
        self.csms.raise_error("SecurityEventNotification")
        return call_result.SecurityEventNotification()

    @on(Action.log_status_notification)
    def on_log_status(self, **_):
        return call_result.LogStatusNotification()

    @on(Action.diagnostics_status_notification)
    def on_diagnostics_status(self, **_):
        return call_result.DiagnosticsStatusNotification()

    @on(Action.data_transfer)
    def on_data_transfer(self, **_):
        self.csms.raise_error("DataTransfer")
        status = self.csms.answers.get("DataTransfer", "Accepted")
        return call_result.DataTransfer(status=DataTransferStatus(status))


def later(version):
    """The session of a later version of OCPP, which boots and no more."""

    class Later(version.ChargePoint):
        def __init__(self, identity, connection, csms):
            super().__init__(identity, Recorder(connection, csms), ANSWER_SECONDS)
            self.csms = csms

        @on("BootNotification")
        def on_boot(self, **_):
            self.csms.count("boots")
            now = datetime.now(timezone.utc).isoformat()
            return version.call_result.BootNotification(now, self.csms.interval, self.csms.boot_status)

    return Later


SESSIONS = {"ocpp1.6": Session, "ocpp2.0.1": later(v201), "ocpp2.1": later(v21)}


class Csms:
    def __init__(self, options):
        self.identity = options.identity
        self.password = bytes.fromhex(options.password)
        self.check_password = not options.no_password
        self.boot_status = options.boot
        self.interval = options.interval
        self.violations = options.violations
        self.answers = {}
        self.frames, self.sent, self.endings = [], [], []
        self.transactions = 0
        self.counts = {"connections": 0, "boots": 0, "refused": 0, "heartbeats": 0, "statuses": 0}
        self.changed = asyncio.Condition()
        self.session = None

    def raise_error(self, action):
        """Raises the CALLERROR that this action is to be answered with, if it is."""
        for error in OCPPError.__subclasses__():
            if error.code == self.answers.get(action):
                raise error()

    def count(self, name):
        self.counts[name] += 1
        asyncio.ensure_future(self.tell())

    async def tell(self):
        async with self.changed:
            self.changed.notify_all()

    def admit(self, connection, request):
        """The answer to a handshake that is not to become a connection, or None."""
        identity = unquote(request.path.rsplit("/", 1)[-1])
        if identity != self.identity:
            self.count("refused")
            return connection.respond(HTTPStatus.NOT_FOUND, "unknown charge point\n")
        if not self.check_password:
            return None
        expected = base64.b64encode(self.identity.encode() + b":" + self.password).decode()
        if request.headers.get("Authorization") != f"Basic {expected}":
            self.count("refused")
            answer = connection.respond(HTTPStatus.UNAUTHORIZED, "wrong credentials\n")
            answer.headers["WWW-Authenticate"] = 'Basic realm="csms"'
            return answer
        return None

    async def serve_charge_point(self, connection):
        session = SESSIONS[connection.subprotocol](self.identity, connection, self)
        self.session, self.connection = session, connection
        self.count("connections")
        try:
            await session.start()
        except ConnectionClosed as why:
            said = why.rcvd
            self.endings.append({"code": said.code if said else 1006, "reason": said.reason if said else ""})
        except Exception as why:  # whatever the library makes of a text
            print(f"connection ended: {why!r}", file=sys.stderr, flush=True)
        finally:
            if self.session is session:
                self.session = None
            await self.tell()

    async def do(self, request):
        what = request["do"]
        match what:
            case "counts":
                return {"answer": self.counts | {"connected": self.session is not None}}
            case "wait":
                reached = lambda: self.counts[request["for"]] >= request["count"]
                async with self.changed:
                    await asyncio.wait_for(self.changed.wait_for(reached), request["seconds"])
                return {"answer": self.counts}
            case "frames":
                return {"answer": self.frames}
            case "transcript":
                return {"answer": transcript(self.frames, self.sent)}
            case "endings":
                return {"answer": self.endings}
            case "boot":
                self.boot_status, self.interval = request["status"], request["interval"]
                return {"answer": {}}
            case "answer":
                self.answers[request["action"]] = request["with"]
                return {"answer": {}}
            case "password":
                self.password = bytes.fromhex(request["hex"])
                return {"answer": {}}
        if self.session is None:
            return {"failed": "the charge point is not connected"}
        match what:
            case "change":
                payload = call.ChangeConfiguration(key=request["key"], value=request["value"])
                return await self.call(payload)
            case "get":
                return await self.call(call.GetConfiguration(key=request.get("keys") or None))
            case "call":
                return await self.call(getattr(call, request["action"])(**request["payload"]))
            case "ask":
                return {"answer": await self.session._connection.ask(request["action"], request["payload"])}
            case "raw":
                before = len(self.frames)
                await self.session._connection.send(request["text"])
                await asyncio.sleep(request["wait"])
                return {"answer": self.frames[before:]}
            case "say":
                return {"answer": await self.session._connection.say(request["text"], request.get("until"))}
            case "subprotocol":
                return {"answer": self.connection.subprotocol}
            case "drop":
                await self.connection.close(request.get("code", 1000), request.get("reason", ""))
                return {"answer": {}}
        return {"failed": f"unknown command {what}"}

    async def call(self, payload):
        try:
            # Unchecked on the way out: tests send what the schema forbids as well.
            answer = await self.session.call(payload, suppress=False, skip_schema_validation=True)
        except OCPPError as error:
            return {"error": {"code": error.code, "description": error.description}}
        fields = vars(answer)
        return {"answer": {name: value for name, value in fields.items() if value is not None}}


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--identity", required=True)
    arguments.add_argument("--password", default="", help="in hexadecimal")
    arguments.add_argument("--no-password", action="store_true")
    arguments.add_argument("--boot", default="Accepted")
    arguments.add_argument("--interval", type=int, default=300)
    arguments.add_argument("--protocols", default="ocpp1.6")
    arguments.add_argument("--certificate")
    arguments.add_argument("--key")
    arguments.add_argument("--violations", help="the file for frames that don't fit their schemas")
    arguments.add_argument("--client-ca", help="charge points must have a certificate of this authority")
    options = arguments.parse_args()

    tls = None
    if options.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate, options.key)
        if options.client_ca:
            tls.load_verify_locations(options.client_ca)
            tls.verify_mode = ssl.CERT_REQUIRED

    csms = Csms(options)
    server = await serve(
        csms.serve_charge_point,
        options.host,
        options.port,
        subprotocols=options.protocols.split(","),
        process_request=csms.admit,
        ssl=tls,
        ping_interval=None,
    )
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)

    # Longer than any message.
    commands = asyncio.StreamReader(limit=2**20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        try:
            answer = await csms.do(json.loads(line))
        except (asyncio.TimeoutError, TimeoutError):
            answer = {"failed": "no answer in time"}
        except Exception as why:  # reported to the test, which knows what to make of it
            answer = {"failed": repr(why)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
