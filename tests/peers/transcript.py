"""What passed over a connection, so that its two ends can be compared: a line for each text."""

import hashlib
import json


def line(text):
    """The text's hash and length in UTF-8, and what an OCPP-J frame says at its beginning."""
    raw = text.encode()
    try:
        kind, unique, *rest = json.loads(text)
        kind = kind if type(kind) is int else None
        unique = unique if isinstance(unique, str) else ""
        action = rest[0] if kind == 2 and rest and isinstance(rest[0], str) else ""
    except (ValueError, TypeError, RecursionError):
        kind, unique, action = None, "", ""
    sha256 = hashlib.sha256(raw).hexdigest()
    return {"kind": kind, "id": unique, "action": action, "bytes": len(raw), "sha256": sha256}


def transcript(received, sent):
    return {"received": [line(text) for text in received], "sent": [line(text) for text in sent]}
