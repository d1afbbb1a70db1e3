"""Holds frames of OCPP-J 1.6 against the JSON schemas of the PyPI package `ocpp`:
the 28 messages of the standard, and those of its security extension."""

import json
import re
import sys
from pathlib import Path

import ocpp
from jsonschema import FormatChecker
from jsonschema.validators import validator_for

SCHEMAS = Path(ocpp.__file__).parent / "v16" / "schemas"
ERROR_CODES = {
    "NotImplemented",
    "NotSupported",
    "InternalError",
    "ProtocolError",
    "SecurityError",
    "FormationViolation",
    "PropertyConstraintViolation",
    "OccurenceConstraintViolation",
    "TypeConstraintViolation",
    "GenericError",
}

formats = FormatChecker(formats=())


@formats.checks("date-time")
def is_time(value):
    """RFC 3339, with milliseconds at most: some CSMSs discard what is finer."""
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?(Z|[+-]\d\d:\d\d)"
    return not isinstance(value, str) or re.fullmatch(pattern, value) is not None


validators = {}


def validator(name):
    """The validator of a message, or None if nobody knows it."""
    if name not in validators:
        file = SCHEMAS / f"{name}.json"
        schema = json.loads(file.read_text("utf-8-sig")) if file.is_file() else None
        validators[name] = schema and validator_for(schema)(schema, format_checker=formats)
    return validators[name]


class Checker:
    """Checks what a charge point sends over one connection."""

    def __init__(self, file):
        """Violations are appended to this file, if there is one, and written to stderr."""
        self.file = file
        self.actions = {}
        self.ids = set()

    def sent(self, text):
        """The CSMS sent this, which may be nonsense."""
        try:
            kind, unique, action, *_ = json.loads(text)
            if kind == 2 and isinstance(unique, str):
                self.actions[unique] = action
        except (ValueError, TypeError, RecursionError):
            pass

    def received(self, text):
        """The charge point sent this. Returns it parsed, if it is JSON."""
        frame = None
        try:
            frame = json.loads(text)
            self.check(frame)
        except Exception as why:  # whatever the charge point may have done wrong
            self.report(f"{why!r}: {text[:500]}")
        return frame

    def check(self, frame):
        kind, unique, *rest = frame
        assert isinstance(unique, str) and len(unique) <= 36, "the id"
        if kind == 2:
            action, payload = rest
            assert unique not in self.ids, "an id twice"
            self.ids.add(unique)
            self.validate(action, payload)
        elif kind == 3:
            (payload,) = rest
            self.validate(f"{self.actions[unique]}Response", payload)
        else:
            assert kind == 4, "the message type"
            code, description, details = rest
            assert code in ERROR_CODES, "the error code"
            assert isinstance(description, str) and len(description) <= 255, "the description"
            assert isinstance(details, dict), "the details"

    def validate(self, name, payload):
        known = validator(name)
        assert known, f"no message {name}"
        for error in known.iter_errors(payload):
            raise ValueError(f"{name}: {error.message}")

    def report(self, violation):
        print(f"violation: {violation}", file=sys.stderr, flush=True)
        if self.file:
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(violation + "\n")
