//! OCPP-J framing.
