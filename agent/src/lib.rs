//! The agent: what wires OCPP and SSH together. Policy, supervision, control socket, command line.
//!
//! # Layout
//! - [`cli`]: one file a command; [`exit`]: their exit codes; [`advice`]: the cure for each failure.
//! - [`check`]: each step to a published port, looked at.
//! - [`config`]: the TOML files as validated types; [`reload`]: how they change under a running agent.
//! - [`policy`]: may this be opened?
//! - [`supervisor`]: the one owner of all tunnels; [`wanted`]: what survives its restart.
//! - [`usage`]: what the tunnels have carried this month, and the cap on it; [`bytes`]: amounts of data in words.
//! - [`link_security`]: what the OCPP link proves itself with, and how the CSMS changes that.
//! - [`trigger`]: the OCPP link, its keys and what they open; [`kept_configuration`]: what the CSMS changed, over restarts.
//! - [`report`]: what the CSMS is told of its own accord; [`happening`]: what happens to tunnels, for it to report.
//! - [`upload`]: logs and diagnostics that the CSMS asks for.
//! - [`way_out`]: a server's other ports, the proxy; [`network`]: tells when the network has come back.
//! - [`control`]: the socket between the command line and the agent.
//! - [`agent`]: a whole agent, from configuration to shutdown.
//! - [`service`]: single instance, privileges, sandbox, what a service manager is told.
//! - [`journal`]: the log, to stderr, syslog and memory; [`audit`]: the records of what was done.
#![forbid(unsafe_code)]

pub mod advice;
pub mod agent;
pub mod audit;
pub mod bytes;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod exit;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod happening;
pub mod journal;
pub mod kept_configuration;
mod last_configuration;
pub mod limits;
pub mod link_security;
pub mod network;
pub mod policy;
pub mod proxy;
pub mod reload;
pub mod report;
pub mod service;
pub mod supervisor;
pub mod trigger;
mod tunnel_log;
pub mod upload;
pub mod usage;
pub mod wanted;
pub mod way_out;
mod whole_file;
