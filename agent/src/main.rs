//! `ocpp-tunnel`: one binary for the agent, the command line and the vendor's scripts.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ocpp_tunnel::cli::main().into()
}
