//! The packages of `cross/package`, what a device needs that they are installed on, and what they leave behind.
//!
//! `OCPP_TUNNEL_PACKAGES` names their directory, `OCPP_TUNNEL_DEBIAN_ROOT` a tarball of `mmdebstrap`; `tests/run` sets both.
//! It makes packages for ARMv7, and with `--release` for the other targets as well.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::root::{Machine, Root};
use crate::service::{Service, exchange};
use crate::sshd::Sshd;
use crate::{LONG, ports, wait_until};

/// A target of `cross/package`, as each kind of package calls it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Rust's name for it.
    pub triple: &'static str,
    /// Debian's name for the architecture.
    pub debian: &'static str,
    /// OpenWrt's.
    pub openwrt: &'static str,
    /// Whose programs run where its packages are installed.
    pub machine: Machine,
}

/// The main one, whose packages every run of the tests makes.
pub const ARM: Target = Target {
    triple: "armv7-unknown-linux-musleabihf",
    debian: "armhf",
    openwrt: "arm_cortex-a7_neon-vfpv4",
    machine: Machine::Arm,
};

/// 64-bit ARM, whose packages are looked at and not installed.
pub const ARM64: Target = Target {
    triple: "aarch64-unknown-linux-musl",
    debian: "arm64",
    openwrt: "aarch64_cortex-a53",
    machine: Machine::Arm,
};

/// This machine's own.
pub const NATIVE: Target = Target {
    triple: "x86_64-unknown-linux-musl",
    debian: "amd64",
    openwrt: "x86_64",
    machine: Machine::Native,
};

/// Where the packages are, if they were made.
pub fn packages() -> Option<PathBuf> {
    let directory = std::env::var_os("OCPP_TUNNEL_PACKAGES").map(PathBuf::from);
    if directory.is_none() {
        eprintln!(
            "!!! SKIPPED: OCPP_TUNNEL_PACKAGES doesn't name the packages; tests/run makes them and does"
        );
    }
    directory
}

/// The one file that begins and ends like this, if there is one.
pub fn package(begin: &str, end: &str) -> Option<PathBuf> {
    let mut found = std::fs::read_dir(packages()?).unwrap().flatten().map(|entry| entry.path());
    let fits = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(begin) && name.ends_with(end)
    };
    let path = found.find(fits);
    if path.is_none() {
        let only_with_release =
            !end.contains(ARM.debian) && !end.contains(ARM.openwrt) && !end.contains(ARM.triple);
        assert!(
            only_with_release && std::env::var_os("OCPP_TUNNEL_ALL_PACKAGES").is_none(),
            "there is no package {begin}…{end}, and it should have been made"
        );
        eprintln!("!!! SKIPPED: there is no package {begin}…{end}; tests/run --release makes all");
    }
    path
}

impl Target {
    /// Its Debian package.
    pub fn deb(&self) -> Option<PathBuf> {
        package("ocpp-tunnel_", &format!("_{}.deb", self.debian))
    }

    /// Its OpenWrt package.
    pub fn ipk(&self) -> Option<PathBuf> {
        package("ocpp-tunnel_", &format!("_{}.ipk", self.openwrt))
    }

    /// Its tarball.
    pub fn tarball(&self) -> Option<PathBuf> {
        package("ocpp-tunnel-", &format!("-{}.tar.gz", self.triple))
    }

    /// A system of Debian that takes its packages.
    pub async fn debian_root(&self) -> Root {
        let tarball = std::env::var("OCPP_TUNNEL_DEBIAN_ROOT").unwrap();
        let root = Root::debian(Path::new(&tarball), self.machine).await;
        if self.machine == Machine::Arm {
            root.does(&["dpkg", "--add-architecture", self.debian]).await;
        }
        root
    }
}

/// What a device needs around it: a server, and a service of its own to publish there.
#[derive(Debug)]
pub struct Around {
    sshd: Sshd,
    echo: Service,
    remote: u16,
}

impl Around {
    /// Starts both.
    pub async fn new() -> Self {
        Self { sshd: Sshd::start().await, echo: Service::echo().await, remote: ports::free() }
    }

    /// What an operator writes into the configuration.
    pub fn configuration(&self) -> String {
        format!(
            "[ocpp]\nmode = 'off'\n\n[ssh]\nhost_keys = ['{}']\nbackoff_minimum = '100ms'\n\n[policy]\n\
             allow_destinations = ['{}']\n\n[log]\nsyslog = 'off'\n\n[[script]]\nkey = 'InvokeCustomScript1'\n\
             remote = 'localhost:{}'\nlocal = '{}'\n",
            self.sshd.known_hosts_line(),
            self.sshd.destination(),
            self.remote,
            self.echo.address(),
        )
    }

    /// Opens a tunnel with the program that runs in `root`, through which bytes come back.
    pub async fn use_it(&self, root: &Root) {
        answers(root).await;
        self.sshd.authorize(&root.does(&["ocpp-tunnel", "keys", "show", "--authorized-keys"]).await);
        root.does(&["ocpp-tunnel", "open", "--wait"]).await;
        self.echo_returns().await;
    }

    /// Waits until bytes make their way through the tunnel and back.
    pub async fn echo_returns(&self) {
        wait_until("bytes come back through the tunnel", LONG, async || {
            let answer = tokio::time::timeout(LONG, exchange(self.remote, b"are you there?")).await;
            matches!(answer, Ok(Ok(answer)) if answer == b"are you there?").then_some(())
        })
        .await;
    }
}

/// Waits until the agent in `root` takes commands.
pub async fn answers(root: &Root) {
    wait_until("the agent takes commands", LONG, async || {
        (root.run(&["ocpp-tunnel", "status"]).await.code != Some(10)).then_some(())
    })
    .await;
}

/// The agents that run in `root`.
pub fn agents(root: &Root) -> Vec<u32> {
    let running = |line: &str| line.contains("/usr/bin/ocpp-tunnel ") && line.trim_end().ends_with(" run");
    let of = |(id, line): (u32, String)| running(&line).then_some(id);
    root.processes().into_iter().filter_map(of).collect()
}

/// User and group of a process, as `100:101`.
pub fn owner_of(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let id = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    format!("{}:{}", id("Uid:"), id("Gid:"))
}

/// What is new, but for what any package manager and account leaves.
pub fn left_behind(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    const USUAL: [&str; 9] = [
        "/var/lib/dpkg/",
        "/var/log/",
        "/var/cache/",
        "/var/lib/systemd",
        "/run/adduser",
        "/etc/.pwd.lock",
        "/etc/passwd-",
        "/etc/group-",
        "/etc/shadow-",
    ];
    let usual =
        |path: &&String| !USUAL.iter().any(|usual| path.starts_with(usual)) && *path != "/etc/gshadow-";
    after.difference(before).filter(usual).cloned().collect()
}

/// Unpacks the tarball in `root`, by its own tools, and returns where.
pub async fn unpack(target: Target, root: &Root) -> Option<String> {
    let tarball = target.tarball()?;
    std::fs::copy(&tarball, root.path("/tmp/ocpp-tunnel.tar.gz")).unwrap();
    root.does(&["tar", "xzf", "/tmp/ocpp-tunnel.tar.gz", "-C", "/tmp"]).await;
    std::fs::remove_file(root.path("/tmp/ocpp-tunnel.tar.gz")).unwrap();
    let name = tarball.file_name().unwrap().to_str().unwrap();
    let tree = format!("/tmp/{}", name.strip_suffix(".tar.gz").unwrap());
    // What the machine is said to be; `uname` is a part of BusyBox's shell.
    let installer = format!("{tree}/install.sh");
    root.write(&installer, &root.read(&installer).replace("$(uname -m)", "$(cat /machine)"));
    Some(tree)
}

/// A root of BusyBox alone, whose machine is the target's.
pub async fn busybox(target: Target) -> Root {
    let root = Root::busybox(target.machine).await;
    root.write("/machine", if target.machine == Machine::Arm { "armv7l" } else { "x86_64" });
    root
}

/// A root with what OpenWrt's package manager and its init scripts need, and a device's architecture.
pub async fn openwrt(target: Target) -> Root {
    let root = busybox(target).await;
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/openwrt");
    std::fs::create_dir_all(root.path("/lib")).unwrap();
    for (file, place) in
        [("functions.sh", "/lib/functions.sh"), ("rc.common", "/etc/rc.common"), ("opkg", "/bin/opkg")]
    {
        std::fs::copy(peers.join(file), root.path(place)).unwrap();
    }
    root.write("/etc/opkg.conf", &format!("arch all 1\narch {} 10\n", target.openwrt));
    root
}
