//! The harness of the end-to-end tests: the agent's real binary, and the real peers that it meets.
//!
//! Every test owns what it starts: a temporary directory, processes that end with the value that stands for them,
//! ports that nobody else was given. Tests therefore run in parallel. Nothing leaves the loopback
//! interface and the networks that a test makes.
//!
//! | module | peer |
//! | --- | --- |
//! | [`agent`] | the binary under test, its configuration, its command line |
//! | [`csms`] | the CSMS: the PyPI package `ocpp` or the npm package `ocpp-rpc`, told what to do through pipes |
//! | [`charge_point`] | a charge controller with an OCPP client of its own, of the same packages |
//! | [`day`] | what passes between the two in a day |
//! | [`fleet`] | many controllers and their CSMS, which count what passes |
//! | [`bad_csms`] | a CSMS that breaks the rules |
//! | [`wire`] | both ends of an OCPP connection, in the test's own hands |
//! | [`sshd`], [`dropbear`] | the SSH servers of OpenSSH and dropbear, with an account of their own |
//! | [`asyncssh`] | an SSH server that opens channels which nobody asked for |
//! | [`ssh`] | the `ssh` client of the person behind the tunnel, and key pairs |
//! | [`service`] | stand-ins for services on the controller: a web page, an echo |
//! | [`log_server`] | an HTTP or HTTPS server that takes uploads |
//! | [`syslog`], [`collector`] | the other end of `/dev/log`; a syslog collector in the network |
//! | [`syslog_daemon`] | the same, played by BusyBox and rsyslog |
//! | [`tls`] | a certificate authority |
//! | [`halting`] | a relay that falls silent at any stage of a handshake |
//! | [`network`] | a network that can fail |
//! | [`mounts`] | disks that are full or can't be written |
//! | [`proxy`] | an HTTP proxy |
//! | [`terminal`] | a person at a terminal |
//! | [`check`] | what the self-check found |
//! | [`figures`] | what the agent takes of the machine |
//! | [`root`], [`packages`] | a small system to install packages in; the packages |
//! | [`host`], [`world`], [`page`] | machines of the test's own, those that the documentation speaks of, and its pages |
//! | [`rig`], [`engine`], [`site`] | what most stories begin with: with a CSMS, without, with a controller as well |
//!
//! A harness can only fail by failing the test that uses it, so that its functions panic with what went wrong.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "used by tests only, where a panic is the report"
)]

pub mod agent;
pub mod asyncssh;
pub mod bad_csms;
pub mod charge_point;
pub mod check;
pub mod collector;
pub mod csms;
pub mod day;
pub mod dropbear;
pub mod engine;
pub mod figures;
pub mod fleet;
pub mod halting;
pub mod host;
pub mod log_server;
pub mod mounts;
pub mod network;
pub mod packages;
pub mod page;
pub mod peer;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod rig;
pub mod root;
pub mod service;
pub mod site;
pub mod ssh;
pub mod sshd;
pub mod syslog;
pub mod syslog_daemon;
pub mod terminal;
pub mod tls;
mod wait;
pub mod wire;
pub mod world;

pub use wait::{LONG, SHORT, wait_until};
