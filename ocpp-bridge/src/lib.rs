//! ocpp-bridge
