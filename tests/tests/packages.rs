//! The packages of `cross/package`: installed into small systems, used, upgraded and removed, as operators do.
//!
//! `OCPP_TUNNEL_PACKAGES` names their directory, `OCPP_TUNNEL_DEBIAN_ROOT` a tarball of `mmdebstrap`; `tests/run` sets both.
//! It makes packages for ARMv7, and with `--release` for the other targets as well.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "helpers outside of test functions; what is left out for want of a package is said"
)]

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use ocpp_tunnel_tests::process::{Daemon, Output, run};
use ocpp_tunnel_tests::root::{Machine, Root};
use ocpp_tunnel_tests::service::{Service, exchange};
use ocpp_tunnel_tests::sshd::Sshd;
use ocpp_tunnel_tests::{LONG, ports, wait_until};
use tokio::process::Command;

/// A target of `cross/package`, as each kind of package calls it.
#[derive(Debug, Clone, Copy)]
struct Target {
    triple: &'static str,
    debian: &'static str,
    openwrt: &'static str,
    machine: Machine,
}

const ARM: Target = Target {
    triple: "armv7-unknown-linux-musleabihf",
    debian: "armhf",
    openwrt: "arm_cortex-a7_neon-vfpv4",
    machine: Machine::Arm,
};

const NATIVE: Target = Target {
    triple: "x86_64-unknown-linux-musl",
    debian: "amd64",
    openwrt: "x86_64",
    machine: Machine::Native,
};

/// Where the packages are, if they were made.
fn packages() -> Option<PathBuf> {
    let directory = std::env::var_os("OCPP_TUNNEL_PACKAGES").map(PathBuf::from);
    if directory.is_none() {
        eprintln!(
            "!!! SKIPPED: OCPP_TUNNEL_PACKAGES doesn't name the packages; tests/run makes them and does"
        );
    }
    directory
}

/// The one file that begins and ends like this, if there is one.
fn package(begin: &str, end: &str) -> Option<PathBuf> {
    let mut found = std::fs::read_dir(packages()?).unwrap().flatten().map(|entry| entry.path());
    let fits = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(begin) && name.ends_with(end)
    };
    let path = found.find(fits);
    if path.is_none() {
        eprintln!("!!! SKIPPED: there is no package {begin}…{end}; tests/run --release makes all");
    }
    path
}

impl Target {
    fn deb(&self) -> Option<PathBuf> {
        package("ocpp-tunnel_", &format!("_{}.deb", self.debian))
    }

    fn ipk(&self) -> Option<PathBuf> {
        package("ocpp-tunnel_", &format!("_{}.ipk", self.openwrt))
    }

    fn tarball(&self) -> Option<PathBuf> {
        package("ocpp-tunnel-", &format!("-{}.tar.gz", self.triple))
    }

    async fn debian_root(&self) -> Root {
        let tarball = std::env::var("OCPP_TUNNEL_DEBIAN_ROOT").unwrap();
        let root = Root::debian(Path::new(&tarball), self.machine).await;
        if self.machine == Machine::Arm {
            root.does(&["dpkg", "--add-architecture", self.debian]).await;
        }
        root
    }
}

/// What a device needs around it: a server, and a service of its own to publish there.
struct Around {
    sshd: Sshd,
    echo: Service,
    remote: u16,
}

impl Around {
    async fn new() -> Self {
        Self { sshd: Sshd::start().await, echo: Service::echo().await, remote: ports::free() }
    }

    /// What an operator writes into the configuration.
    fn configuration(&self) -> String {
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
    async fn use_it(&self, root: &Root) {
        answers(root).await;
        self.sshd.authorize(&root.does(&["ocpp-tunnel", "keys", "show", "--authorized-keys"]).await);
        root.does(&["ocpp-tunnel", "open", "--wait"]).await;
        self.echo_returns().await;
    }

    async fn echo_returns(&self) {
        wait_until("bytes come back through the tunnel", LONG, async || {
            let answer = tokio::time::timeout(LONG, exchange(self.remote, b"are you there?")).await;
            matches!(answer, Ok(Ok(answer)) if answer == b"are you there?").then_some(())
        })
        .await;
    }
}

/// Waits until the agent in `root` takes commands.
async fn answers(root: &Root) {
    wait_until("the agent takes commands", LONG, async || {
        (root.run(&["ocpp-tunnel", "status"]).await.code != Some(10)).then_some(())
    })
    .await;
}

/// The agents that run in `root`.
fn agents(root: &Root) -> Vec<u32> {
    let running = |line: &str| line.contains("/usr/bin/ocpp-tunnel ") && line.trim_end().ends_with(" run");
    let of = |(id, line): (u32, String)| running(&line).then_some(id);
    root.processes().into_iter().filter_map(of).collect()
}

/// User and group of a process, as `100:101`.
fn owner_of(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let id = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    format!("{}:{}", id("Uid:"), id("Gid:"))
}

/// What is new, but for what any package manager and account leaves.
fn left_behind(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
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

async fn runs(command: &mut Command) -> Output {
    let output = run(command, "").await;
    assert_eq!(output.code, Some(0), "{command:?}: {output:?}");
    output
}

// === Debian ===

/// A later version of a package, whose shipped configuration is another one.
async fn later(deb: &Path, root: &Root) -> String {
    let tree = root.path("/root/later");
    runs(Command::new("dpkg-deb").arg("-R").arg(deb).arg(&tree)).await;
    let control = std::fs::read_to_string(tree.join("DEBIAN/control")).unwrap();
    let version = control.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap();
    std::fs::write(tree.join("DEBIAN/control"), control.replace(version, "99.0-1")).unwrap();
    let shipped = tree.join("etc/ocpp-tunnel/config.toml");
    let text = std::fs::read_to_string(&shipped).unwrap() + "# A later version.\n";
    std::fs::write(shipped, text).unwrap();
    let made = root.path("/root/later.deb");
    runs(Command::new("dpkg-deb").args(["--root-owner-group", "-Zgzip", "-b"]).arg(&tree).arg(made)).await;
    std::fs::remove_dir_all(tree).unwrap();
    "/root/later.deb".into()
}

async fn debian_package_is_installed_used_upgraded_and_removed(target: Target) {
    let Some(deb) = target.deb() else { return };
    let root = target.debian_root().await;
    let before = root.files().await;
    std::fs::copy(&deb, root.path("/root/first.deb")).unwrap();
    let around = Around::new().await;

    root.does(&["dpkg", "-i", "/root/first.deb"]).await;
    let account = root.account("ocpp-tunnel").unwrap();
    assert!(root.read("/etc/passwd").contains(":/var/lib/ocpp-tunnel:/usr/sbin/nologin\n"));
    assert_eq!(root.owner("/var/lib/ocpp-tunnel"), format!("750 {account}"));
    assert_eq!(root.owner("/etc/ocpp-tunnel/config.toml"), "644 0:0");
    assert_eq!(root.owner("/etc/ocpp-tunnel/config.d"), "755 0:0");
    assert!(root.has("/etc/systemd/system/multi-user.target.wants/ocpp-tunnel.service"), "it is enabled");
    assert!(agents(&root).is_empty(), "and not started");
    assert_eq!(root.does(&["dpkg", "--verify", "ocpp-tunnel"]).await, "");
    for shim in ["custom_script1.sh", "custom_script2.sh"] {
        let resolved = root.does(&["readlink", "-f", &format!("/usr/lib/ocpp-tunnel/{shim}")]).await;
        assert_eq!(resolved, "/usr/bin/ocpp-tunnel\n");
        assert!(!root.has(&format!("/usr/bin/{shim}")), "the vendor's names are linked by who wants them");
    }
    for file in
        ["man/man1/ocpp-tunnel.1.gz", "bash-completion/completions/ocpp-tunnel", "doc/ocpp-tunnel/copyright"]
    {
        assert!(root.has(&format!("/usr/share/{file}")), "{file}");
    }

    // As it comes it isn't configured, and says what is missing.
    let unconfigured = root.run(&["ocpp-tunnel", "config", "check"]).await;
    assert!(
        unconfigured.code == Some(78) && unconfigured.stderr.contains("ocpp.identity is missing"),
        "{unconfigured:?}"
    );
    root.write("/etc/ocpp-tunnel/config.toml", &around.configuration());
    root.does(&["ocpp-tunnel", "config", "check"]).await;
    // systemd makes this directory, and gives it to the user of the unit.
    root.does(&["install", "-d", "-m", "750", "-o", "ocpp-tunnel", "-g", "ocpp-tunnel", "/run/ocpp-tunnel"])
        .await;
    let mut agent = start_as(&root, &account);
    around.use_it(&root).await;
    let key = root.does(&["ocpp-tunnel", "keys", "show"]).await;
    assert!(agents(&root).iter().all(|pid| owner_of(*pid) == account), "{:?}", root.processes());
    stop(&mut agent).await;

    // The operator's configuration, key and account stay.
    let later = later(&deb, &root).await;
    root.does(&["dpkg", "--force-confdef", "-i", &later]).await;
    assert_eq!(root.read("/etc/ocpp-tunnel/config.toml"), around.configuration());
    assert!(root.read("/etc/ocpp-tunnel/config.toml.dpkg-dist").ends_with("# A later version.\n"));
    assert_eq!(root.account("ocpp-tunnel").unwrap(), account);
    let mut agent = start_as(&root, &account);
    answers(&root).await;
    assert_eq!(root.does(&["ocpp-tunnel", "keys", "show"]).await, key);
    root.does(&["ocpp-tunnel", "open", "--wait"]).await;
    around.echo_returns().await;
    stop(&mut agent).await;

    root.does(&["dpkg", "--remove", "ocpp-tunnel"]).await;
    assert!(!root.has("/usr/bin/ocpp-tunnel") && !root.has("/usr/lib/ocpp-tunnel"));
    assert_eq!(root.read("/etc/ocpp-tunnel/config.toml"), around.configuration());
    assert!(root.has("/var/lib/ocpp-tunnel/id_ed25519"));
    root.write("/etc/ocpp-tunnel/authorization-key", "a password that nobody needs any more");
    root.does(&["dpkg", "--purge", "ocpp-tunnel"]).await;
    assert_eq!(root.account("ocpp-tunnel"), None);
    assert!(!root.read("/etc/group").contains("ocpp-tunnel"));
    std::fs::remove_file(root.path("/root/first.deb")).unwrap();
    std::fs::remove_file(root.path("/root/later.deb")).unwrap();
    std::fs::remove_file(root.path("/root/log")).unwrap();
    let left = left_behind(&before, &root.files().await);
    assert!(left.is_empty(), "{left:?}");
}

/// Starts the agent as systemd does: as that user from the first.
fn start_as(root: &Root, account: &str) -> Daemon {
    let mut command = root.command_as(account, &["/usr/bin/ocpp-tunnel", "run"]);
    Daemon::start(command.stdin(Stdio::null()).stdout(Stdio::null()), &root.path("/root/log"))
}

async fn stop(agent: &mut Daemon) {
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = agent.ended(LONG).await;
    assert!(ended.success(), "{ended}: {}", agent.log());
}

#[tokio::test]
async fn the_armhf_debian_package_is_installed_used_upgraded_and_removed() {
    debian_package_is_installed_used_upgraded_and_removed(ARM).await;
}

#[tokio::test]
async fn the_amd64_debian_package_is_installed_used_upgraded_and_removed() {
    debian_package_is_installed_used_upgraded_and_removed(NATIVE).await;
}

#[tokio::test]
async fn debians_own_critic_finds_no_fault_with_the_package() {
    for target in [ARM, NATIVE] {
        let Some(deb) = target.deb() else { continue };
        if !Path::new("/usr/bin/lintian").exists() {
            eprintln!("there is no lintian here");
            return;
        }
        let mut lintian = Command::new("lintian");
        let judged = run(lintian.args(["--allow-root", "--fail-on", "error,warning"]).arg(deb), "").await;
        assert_eq!((judged.code, judged.stdout.as_str()), (Some(0), ""), "{judged:?}");
    }
}

// === the tarball ===

/// Unpacks the tarball in `root`, by its own tools, and returns where.
async fn unpack(target: Target, root: &Root) -> Option<String> {
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
async fn busybox(target: Target) -> Root {
    let root = Root::busybox(target.machine).await;
    root.write("/machine", if target.machine == Machine::Arm { "armv7l" } else { "x86_64" });
    root
}

async fn tarball_serves_a_system_of_busybox_alone(target: Target) {
    let root = busybox(target).await;
    let before = root.files().await;
    let Some(tree) = unpack(target, &root).await else { return };
    let installer = format!("{tree}/install.sh");
    let around = Around::new().await;

    let said = root.does(&[&installer]).await;
    assert!(said.contains("isn't configured yet") && said.contains("ocpp.identity is missing"), "{said}");
    let account = root.account("ocpp-tunnel").unwrap();
    assert_eq!(root.owner("/var/lib/ocpp-tunnel"), format!("750 {account}"));
    assert_eq!(root.owner("/etc/ocpp-tunnel/config.toml"), "644 0:0");
    assert!(agents(&root).is_empty(), "{:?}", root.processes());

    root.write("/etc/ocpp-tunnel/config.toml", &around.configuration());
    root.does(&["/etc/init.d/S90ocpp-tunnel", "start"]).await;
    around.use_it(&root).await;
    let first = agents(&root);
    assert!(first.iter().any(|pid| owner_of(*pid) == account), "{:?}", root.processes());

    // An upgrade keeps the configuration, and brings back what was open.
    let shipped = format!("{tree}/etc/config.toml");
    root.write(&shipped, &(root.read(&shipped) + "# A later version.\n"));
    let said = root.does(&[&installer]).await;
    assert!(said.contains("config.toml was changed here and is kept"), "{said}");
    assert!(said.contains("restarting the agent"), "{said}");
    assert_eq!(root.read("/etc/ocpp-tunnel/config.toml"), around.configuration());
    assert!(root.read("/etc/ocpp-tunnel/config.toml.new").ends_with("# A later version.\n"));
    answers(&root).await;
    assert!(agents(&root).iter().all(|pid| !first.contains(pid)), "{first:?} {:?}", root.processes());
    around.echo_returns().await;
    // The same again has nothing to say of the configuration.
    std::fs::remove_file(root.path("/etc/ocpp-tunnel/config.toml.new")).unwrap();
    let said = root.does(&[&installer, "--no-start"]).await;
    assert!(!said.contains("is kept") && !root.has("/etc/ocpp-tunnel/config.toml.new"), "{said}");

    // What was installed knows how to go, without the tarball.
    std::fs::remove_dir_all(root.path(&tree)).unwrap();
    let said = root.does(&["sh", "/usr/share/ocpp-tunnel/install.sh", "--uninstall"]).await;
    assert!(said.contains("configuration and state are still in"), "{said}");
    assert!(agents(&root).is_empty(), "{:?}", root.processes());
    assert!(!root.has("/usr/bin/ocpp-tunnel") && !root.has("/usr/share/ocpp-tunnel"));
    assert!(root.has("/var/lib/ocpp-tunnel/id_ed25519") && root.has("/etc/ocpp-tunnel/config.toml"));
    unpack(target, &root).await.unwrap();
    root.does(&[&installer, "--purge"]).await;
    std::fs::remove_dir_all(root.path(&tree)).unwrap();
    for file in ["passwd", "group", "shadow"] {
        assert!(!root.read(&format!("/etc/{file}")).contains("ocpp-tunnel"), "{file}");
    }
    let left = left_behind(&before, &root.files().await);
    // Directories that any system has.
    let left: Vec<_> =
        left.iter().filter(|path| !["/usr/lib", "/usr/share"].contains(&path.as_str())).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn the_armv7_tarball_serves_a_system_of_busybox_alone() {
    tarball_serves_a_system_of_busybox_alone(ARM).await;
}

#[tokio::test]
async fn the_x86_64_tarball_serves_a_system_of_busybox_alone() {
    tarball_serves_a_system_of_busybox_alone(NATIVE).await;
}

#[tokio::test]
async fn the_installer_touches_nothing_where_it_could_not_finish() {
    let root = busybox(ARM).await;
    let Some(tree) = unpack(ARM, &root).await else { return };
    let installer = format!("{tree}/install.sh");
    let before = root.files().await;

    let somebody = run(&mut root.command_as("1000:1000", &[&installer]), "").await;
    assert!(somebody.code == Some(1) && somebody.stderr.contains("only root"), "{somebody:?}");
    for (arguments, why) in [
        (vec!["--prefix", "opt"], "not an absolute path"),
        (vec!["--prefix", "/opt/$(reboot)"], "only letters, digits"),
        (vec!["--init", "upstart"], "there are systemd, procd, openrc, busybox and none"),
        (vec!["--prefix"], "needs a value"),
        (vec!["--frobnicate"], "unknown option"),
    ] {
        let refused = root.run(&[&[installer.as_str()], arguments.as_slice()].concat()).await;
        assert!(refused.code == Some(2) && refused.stderr.contains(why), "{arguments:?}: {refused:?}");
    }
    root.write("/var/lib/dpkg/info/ocpp-tunnel.list", "");
    let packaged = root.run(&[&installer]).await;
    assert!(packaged.code == Some(1) && packaged.stderr.contains("a package of ocpp-tunnel"), "{packaged:?}");
    std::fs::remove_dir_all(root.path("/var/lib/dpkg")).unwrap();
    // Another machine's program is never started.
    root.write("/machine", "mips");
    let foreign = root.run(&[&installer]).await;
    assert!(
        foreign.code == Some(1) && foreign.stderr.contains("this machine is mips: take another one"),
        "{foreign:?}"
    );
    root.write("/machine", "armv7l");
    let missing = root.run(&[&installer, "--uninstall"]).await;
    assert!(missing.code == Some(1) && missing.stderr.contains("isn't installed in /usr"), "{missing:?}");
    assert_eq!(root.files().await, before);

    let read_only = format!("mount -o remount,ro,bind / && {installer}");
    let refused = root.run(&["sh", "-c", &read_only]).await;
    assert!(
        refused.code == Some(1) && refused.stderr.contains("cannot write in /usr, so nothing was changed"),
        "{refused:?}"
    );
    assert_eq!(root.files().await, before);
}

#[tokio::test]
async fn the_installer_fills_an_image_for_every_init_system() {
    let root = busybox(ARM).await;
    let Some(tree) = unpack(ARM, &root).await else { return };
    for (mark, init, service, enabled) in [
        (
            "/lib/systemd/systemd",
            "systemd",
            "/etc/systemd/system/ocpp-tunnel.service",
            "/etc/systemd/system/multi-user.target.wants/ocpp-tunnel.service",
        ),
        ("/sbin/procd", "procd", "/etc/init.d/ocpp-tunnel", "/etc/rc.d/S95ocpp-tunnel"),
        ("/sbin/openrc-run", "openrc", "/etc/init.d/ocpp-tunnel", "/etc/runlevels/default/ocpp-tunnel"),
        ("/etc/init.d/rcS", "busybox", "/etc/init.d/S90ocpp-tunnel", "/etc/init.d/S90ocpp-tunnel"),
    ] {
        let image = format!("/tmp/{init}");
        root.write(&format!("{image}{mark}"), "");
        root.write(&format!("{image}/etc/rc.common"), "");
        root.write(
            &format!("{image}/etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nlast:x:999:999::/:/bin/false\n",
        );
        root.write(&format!("{image}/etc/group"), "root:x:0:\nlast:x:999:\n");
        std::fs::create_dir_all(root.path(&format!("{image}/usr/share/man"))).unwrap();
        let before = root.files().await;
        let install = format!("DESTDIR={image} {tree}/install.sh --prefix /opt/site");
        let said = root.does(&["sh", "-c", &install]).await;
        assert!(said.contains(&format!("for {init} ({service})")), "{said}");
        assert!(root.has(&format!("{image}{enabled}")), "{init}");
        let text = root.read(&format!("{image}{service}"));
        assert!(
            text.contains("/opt/site/bin/ocpp-tunnel") && !text.contains("/usr/bin/ocpp-tunnel"),
            "{text}"
        );
        let state = if init == "procd" { "/etc/ocpp-tunnel/state" } else { "/var/lib/ocpp-tunnel" };
        assert_eq!(root.owner(&format!("{image}{state}")), "750 998:998");
        assert_eq!(root.has(&format!("{image}/etc/ocpp-tunnel/config.d/10-openwrt.toml")), init == "procd");
        assert!(root.read(&format!("{image}/etc/passwd")).contains("ocpp-tunnel:x:998:998:"));

        let purge = format!("DESTDIR={image} sh {image}/opt/site/share/ocpp-tunnel/install.sh --purge");
        root.does(&["sh", "-c", &purge]).await;
        assert!(
            !root.has(&format!("{image}{enabled}"))
                && !root.has(&format!("{image}/opt/site/bin/ocpp-tunnel"))
        );
        assert!(!root.read(&format!("{image}/etc/passwd")).contains("ocpp-tunnel"));
        assert!(
            !root.has(&format!("{image}/etc/ocpp-tunnel")),
            "{:?}",
            root.files().await.difference(&before)
        );
    }
}

// === OpenWrt ===

/// A root with what OpenWrt's package manager and its init scripts need, and a device's architecture.
async fn openwrt(target: Target) -> Root {
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

async fn openwrt_package_is_installed_used_upgraded_and_removed(target: Target) {
    let Some(ipk) = target.ipk() else { return };
    let root = openwrt(target).await;
    let before = root.files().await;
    std::fs::copy(&ipk, root.path("/tmp/ocpp-tunnel.ipk")).unwrap();
    let around = Around::new().await;

    let said = root.does(&["opkg", "install", "/tmp/ocpp-tunnel.ipk"]).await;
    assert!(said.contains("ocpp.identity is missing"), "it says what isn't configured: {said}");
    assert!(agents(&root).is_empty(), "{:?}", root.processes());
    assert!(root.has("/etc/rc.d/S95ocpp-tunnel") && root.has("/etc/rc.d/K05ocpp-tunnel"));
    assert_eq!(root.read("/lib/upgrade/keep.d/ocpp-tunnel"), "/etc/ocpp-tunnel/\n");
    let account = root.account("ocpp-tunnel").unwrap();
    root.write("/etc/ocpp-tunnel/config.toml", &around.configuration());
    root.does(&["/etc/init.d/ocpp-tunnel", "start"]).await;
    around.use_it(&root).await;
    assert_eq!(root.owner("/etc/ocpp-tunnel/state"), format!("750 {account}"));
    let first = agents(&root);
    assert!(first.iter().all(|pid| owner_of(*pid) == account), "{:?}", root.processes());

    root.does(&["opkg", "install", "/tmp/ocpp-tunnel.ipk"]).await;
    assert_eq!(root.read("/etc/ocpp-tunnel/config.toml"), around.configuration());
    answers(&root).await;
    assert!(agents(&root).iter().all(|pid| !first.contains(pid)), "{:?}", root.processes());
    around.echo_returns().await;

    root.does(&["opkg", "remove", "ocpp-tunnel"]).await;
    assert!(agents(&root).is_empty(), "{:?}", root.processes());
    assert!(!root.has("/usr/bin/ocpp-tunnel") && !root.has("/etc/rc.d/S95ocpp-tunnel"));
    assert_eq!(root.read("/etc/ocpp-tunnel/config.toml"), around.configuration());
    // What a person removes who wants nothing of it any more.
    root.does(&["rm", "-r", "/etc/ocpp-tunnel", "/tmp/ocpp-tunnel.ipk"]).await;
    let left = left_behind(&before, &root.files().await);
    // What any package leaves there, and what is in memory.
    let expected = ["/etc/rc.d", "/usr/lib", "/usr/lib/opkg", "/usr/lib/opkg/info"];
    let left: Vec<_> =
        left.iter().filter(|path| !expected.contains(&path.as_str()) && !path.starts_with("/run/")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn the_armv7_openwrt_package_is_installed_used_upgraded_and_removed() {
    openwrt_package_is_installed_used_upgraded_and_removed(ARM).await;
}

#[tokio::test]
async fn the_x86_64_openwrt_package_is_installed_used_upgraded_and_removed() {
    openwrt_package_is_installed_used_upgraded_and_removed(NATIVE).await;
}

// === docs/install.md ===

const PAGE: &str = include_str!("../../docs/install.md");

/// The commands below a heading of the page, block by block.
fn commands(heading: &str) -> Vec<String> {
    let (_, below) = PAGE.split_once(&format!("# {heading}\n")).unwrap();
    let section = below.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.map(str::to_owned).collect()
}

/// Has a person type these lines in `/tmp` or, once they have gone there, elsewhere.
async fn types(root: &Root, place: &str, lines: &str) -> String {
    root.does(&["sh", "-ec", &format!("cd {place}\n{lines}")]).await
}

#[tokio::test]
async fn the_page_leads_through_debians_package() {
    let Some(deb) = ARM.deb() else { return };
    let root = ARM.debian_root().await;
    std::fs::copy(&deb, root.path("/tmp").join(deb.file_name().unwrap())).unwrap();
    std::fs::copy(packages().unwrap().join("SHA256SUMS"), root.path("/tmp/SHA256SUMS")).unwrap();
    root.write("/usr/local/bin/systemctl", "#!/bin/sh\necho \"$@\" >>/tmp/systemctl\n");
    root.does(&["chmod", "755", "/usr/local/bin/systemctl"]).await;
    let compared = types(&root, "/tmp", &commands("Installing")[0]).await;
    assert!(compared.ends_with(".deb: OK\n"), "{compared}");
    let [install, start, remove] = commands("Debian").try_into().unwrap();
    types(&root, "/tmp", &install).await;
    root.write("/etc/ocpp-tunnel/config.d/10-off.toml", "[ocpp]\nmode = 'off'\n");
    types(&root, "/tmp", &start).await;
    assert_eq!(root.read("/tmp/systemctl"), "start ocpp-tunnel\n");
    let [upgrade] = commands("Through its own tunnel").try_into().unwrap();
    types(&root, "/tmp", &format!("{upgrade}\nwait")).await;
    assert!(
        root.read("/tmp/upgrade.log").contains("Setting up ocpp-tunnel"),
        "{}",
        root.read("/tmp/upgrade.log")
    );
    types(&root, "/tmp", &remove).await;
    assert!(!root.has("/etc/ocpp-tunnel") && !root.has("/usr/bin/ocpp-tunnel"));
}

#[tokio::test]
async fn the_page_leads_through_openwrts_package() {
    let Some(ipk) = ARM.ipk() else { return };
    let root = openwrt(ARM).await;
    std::fs::copy(&ipk, root.path("/tmp").join(ipk.file_name().unwrap())).unwrap();
    let [install, start, remove] = commands("OpenWrt").try_into().unwrap();
    assert!(types(&root, "/", &install).await.contains(ARM.openwrt));
    root.write("/etc/ocpp-tunnel/config.d/20-off.toml", "[ocpp]\nmode = 'off'\n");
    types(&root, "/", &start).await;
    answers(&root).await;
    types(&root, "/", &remove).await;
    assert!(agents(&root).is_empty() && !root.has("/etc/ocpp-tunnel") && !root.has("/usr/bin/ocpp-tunnel"));
}

#[tokio::test]
async fn the_page_leads_through_the_tarball() {
    let Some(tarball) = ARM.tarball() else { return };
    let root = busybox(ARM).await;
    let tree = unpack(ARM, &root).await.unwrap();
    let [install, start, uninstall, purge] = commands("The tarball").try_into().unwrap();
    // Unpacked already, with the machine's name for BusyBox's shell.
    root.does(&["rm", "-f", "/tmp/ocpp-tunnel.tar.gz"]).await;
    let (unpacking, rest) = install.split_once('\n').unwrap();
    assert_eq!(unpacking, "tar xzf ocpp-tunnel-*-armv7-unknown-linux-musleabihf.tar.gz");
    assert!(tarball.exists());
    types(&root, "/tmp", rest).await;
    root.write("/etc/ocpp-tunnel/config.d/10-off.toml", "[ocpp]\nmode = 'off'\n");
    types(&root, "/", &start).await;
    answers(&root).await;
    types(&root, "/", &uninstall).await;
    assert!(agents(&root).is_empty() && root.has("/etc/ocpp-tunnel/config.toml"));
    root.does(&[&format!("{tree}/install.sh")]).await;
    types(&root, "/", &purge).await;
    assert!(!root.has("/etc/ocpp-tunnel") && root.account("ocpp-tunnel").is_none());
    types(&root, &tree, &commands("Into an image")[0]).await;
    assert!(root.has("/tmp/image/etc/init.d/S90ocpp-tunnel"));
}

// === what lies beside them ===

#[tokio::test]
async fn the_sums_are_those_of_all_that_was_made() {
    let Some(directory) = packages() else { return };
    let checked = run(Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(&directory), "").await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let found = runs(
        Command::new("find").args([".", "-type", "f", "!", "-name", "SHA256SUMS"]).current_dir(&directory),
    )
    .await;
    assert_eq!(checked.stdout.lines().count(), found.stdout.lines().count(), "{checked:?}");
    // The recipes fetch these very tarballs.
    let tarball = ARM.tarball().unwrap();
    let sum = runs(Command::new("sha256sum").arg(&tarball)).await.stdout;
    let sum = sum.split(' ').next().unwrap();
    let hashes =
        std::fs::read_to_string(directory.join("buildroot/ocpp-tunnel-bin/ocpp-tunnel-bin.hash")).unwrap();
    assert!(
        hashes.contains(&format!("sha256  {sum}  {}", tarball.file_name().unwrap().display())),
        "{hashes}"
    );
    let recipes = std::fs::read_dir(directory.join("yocto")).unwrap().flatten();
    let recipe = recipes.map(|entry| std::fs::read_to_string(entry.path()).unwrap()).next().unwrap();
    assert!(recipe.contains(&format!("SRC_URI[{}.sha256sum] = \"{sum}\"", ARM.triple)), "{recipe}");
}

#[tokio::test]
async fn the_bill_of_materials_names_what_is_linked_and_nothing_else() {
    let Some(path) = package("ocpp-tunnel-", &format!("-{}.cdx.json", ARM.triple)) else { return };
    let document: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!((&document["bomFormat"], &document["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let components = document["components"].as_array().unwrap();
    let names: BTreeSet<_> = components.iter().map(|component| component["name"].as_str().unwrap()).collect();
    for linked in ["russh", "ring", "rustls", "tokio", "reverse-tunnel", "musl", "rust-std"] {
        assert!(names.contains(linked), "{linked}");
    }
    // What only builds, tests, or runs elsewhere.
    for absent in ["cc", "proptest", "rcgen", "clap_derive", "windows-sys", "serde_derive"] {
        assert!(!names.contains(absent), "{absent}");
    }
    let lock = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock")).unwrap();
    let mut references = HashSet::new();
    for component in components {
        assert!(references.insert(&component["bom-ref"]), "twice: {component}");
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        if let Some(sum) = component["hashes"][0]["content"].as_str() {
            assert!(lock.contains(sum), "{component}");
        }
    }
    references.insert(&document["metadata"]["component"]["bom-ref"]);
    for dependency in document["dependencies"].as_array().unwrap() {
        assert!(references.contains(&dependency["ref"]), "{dependency}");
        for needed in dependency["dependsOn"].as_array().unwrap() {
            assert!(references.contains(needed), "{dependency}");
        }
    }
    // It is of the binary that the tarball holds.
    let tarball = ARM.tarball().unwrap();
    let name = tarball.file_name().unwrap().to_str().unwrap().strip_suffix(".tar.gz").unwrap().to_owned();
    let member = format!("{name}/bin/ocpp-tunnel");
    let text = "tar xzOf \"$1\" \"$2\" | sha256sum | cut -d' ' -f1";
    let sum = runs(Command::new("sh").args(["-c", text, "sh"]).arg(&tarball).arg(member)).await.stdout;
    assert_eq!(document["metadata"]["component"]["hashes"][0]["content"], sum.trim());
}

#[tokio::test]
async fn the_scripts_of_the_packages_are_sound() {
    let cross = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cross");
    let all = [
        "package",
        "build",
        "tarball/install.sh",
        "deb/postinst",
        "deb/prerm",
        "deb/postrm",
        "openwrt/postinst",
        "openwrt/prerm",
    ];
    for script in all {
        let path = cross.join(script);
        if script.contains('/') {
            let parsed = run(Command::new("busybox").args(["ash", "-n"]).arg(&path), "").await;
            assert_eq!((parsed.code, parsed.stderr.as_str()), (Some(0), ""), "{parsed:?}");
        }
        if !Path::new("/usr/bin/shellcheck").exists() {
            eprintln!("there is no shellcheck here");
            continue;
        }
        let checked = run(Command::new("shellcheck").arg("--severity=warning").arg(&path), "").await;
        assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    }
}
