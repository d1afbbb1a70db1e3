//! A network of the test's own: the agent lives in a network namespace, and a virtual cable leads from there to the
//! machine. It can be pulled, packets can be dropped on the way, connections be reset.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::write_program;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The namespace and its cable. Dropping it removes both.
#[derive(Debug)]
pub struct Network {
    name: String,
    /// A network of four addresses within 10.64.0.0/10: ours is the second one, the agent's the third.
    base: u32,
}

impl Network {
    /// Makes one.
    ///
    /// # Panics
    /// If the kernel doesn't let us: the tests need root.
    pub fn new() -> Self {
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let base = u32::from(Ipv4Addr::new(10, 64, 0, 0)) + ((pid * 64 + number % 64) % (1 << 20)) * 4;
        // An interface's name has at most 15 characters.
        let network = Self { name: format!("ot{pid}n{number}"), base };
        let (name, ours, theirs) =
            (&network.name, format!("{}a", network.name), format!("{}b", network.name));
        run(&["ip", "netns", "add", name]);
        run(&["ip", "link", "add", &ours, "type", "veth", "peer", "name", &theirs, "netns", name]);
        run(&["ip", "addr", "add", &format!("{}/30", network.address()), "dev", &ours]);
        run(&["ip", "-n", name, "addr", "add", &format!("{}/30", network.agent_address()), "dev", &theirs]);
        run(&["ip", "link", "set", &ours, "up"]);
        run(&["ip", "-n", name, "link", "set", &theirs, "up"]);
        run(&["ip", "-n", name, "link", "set", "lo", "up"]);
        network
    }

    /// The machine's address at its end of the cable.
    pub fn address(&self) -> Ipv4Addr {
        (self.base + 1).into()
    }

    /// The agent's address.
    pub fn agent_address(&self) -> Ipv4Addr {
        (self.base + 2).into()
    }

    /// A program in `directory` that runs its arguments in this network.
    pub fn runner(&self, directory: &Path) -> PathBuf {
        let path = directory.join("in-network");
        let script = format!("#!/bin/sh\nexec nsenter --net=/run/netns/{} \"$@\"\n", self.name);
        write_program(&path, &script);
        path
    }

    /// Pulls the cable at the machine's end: the agent's interface loses its carrier.
    pub fn pull(&self) {
        run(&["ip", "link", "set", &format!("{}a", self.name), "down"]);
    }

    /// Plugs the cable in again.
    pub fn plug(&self) {
        run(&["ip", "link", "set", &format!("{}a", self.name), "up"]);
    }

    /// Drops every packet that leaves the agent and every one that comes to it; ended by [`Self::pass`].
    pub fn drop_packets(&self) {
        self.rules("add chain inet t in { type filter hook input priority 0; policy drop; }");
        self.rules("add chain inet t out { type filter hook output priority 0; policy drop; }");
    }

    /// Drops what comes to the agent, as a NAT does that has forgotten the connection; ended by [`Self::pass`].
    pub fn forget(&self) {
        self.rules("add chain inet t in { type filter hook input priority 0; policy drop; }");
    }

    /// Resets every TCP connection of the agent as soon as it sends anything; ended by [`Self::pass`].
    pub fn reset(&self) {
        self.rules("add chain inet t out { type filter hook output priority 0; policy accept; }");
        self.rules("add rule inet t out ip protocol tcp reject with tcp reset");
    }

    /// Lets everything through again.
    pub fn pass(&self) {
        self.inside(&["nft", "flush ruleset"]);
    }

    fn rules(&self, rules: &str) {
        self.inside(&["nft", "add table inet t"]);
        self.inside(&["nft", rules]);
    }

    fn inside(&self, command: &[&str]) {
        let net = format!("--net=/run/netns/{}", self.name);
        run(&[&["nsenter", &net], command].concat());
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The other end goes with it.
        let _ = Command::new("ip").args(["link", "del", &format!("{}a", self.name)]).output();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

fn run(command: &[&str]) {
    let (program, arguments) = command.split_first().expect("there is a program");
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|why| panic!("cannot start {command:?}: {why}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
