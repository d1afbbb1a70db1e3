//! The socket between the command line and the agent: one request and one answer a connection, each a line of JSON. Only
//! the log is given in many answers, for as long as the client follows it.
//!
//! Who can connect may command: the directory is 0750, the socket 0660 and of the group `ocpp-tunnel`. Who it was is
//! asked of the kernel and logged.

pub mod client;
pub mod document;
mod logs;
pub mod protocol;
pub mod server;
