//! The agent as a service: what a service manager is told, how it ends, what it can't do, and the files that start it.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "helpers outside of test functions; what is left out for want of a tool is said"
)]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::process::{self, Output, run, write_program};
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::service::{Manner, Service, behave};
use ocpp_tunnel_tests::syslog::Syslog;
use ocpp_tunnel_tests::{LONG, ports, wait_until};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The files that packages install.
fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cross/files")
}

/// A datagram socket where the service manager's should be: it takes whole messages, as syslog's does.
fn manager(directory: &Path) -> Syslog {
    Syslog::start(&directory.join("notify"))
}

#[tokio::test]
async fn a_service_manager_is_told_of_the_start_of_tunnels_of_a_reload_and_of_the_end() {
    let place = tempfile::tempdir().unwrap();
    let manager = manager(place.path());
    let socket = manager.path().to_str().unwrap().to_owned();
    let mut rig = Rig::with(|setup| setup.environment("NOTIFY_SOCKET", &socket)).await;
    manager.line_with("READY=1").await;
    assert_eq!(manager.lines()[0], "READY=1", "and nothing before");
    manager.line_with("STATUS=ocpp accepted; 0 of 0 wanted tunnels up").await;
    rig.open(1).await;
    manager.line_with("STATUS=ocpp accepted; 1 of 1 wanted tunnels up").await;

    let before = manager.lines().len();
    assert_eq!(rig.agent.cli(&["config", "reload"]).await.code, Some(0));
    wait_until("the reload is over", LONG, async || {
        (manager.lines()[before..].iter().filter(|line| *line == "READY=1").count() == 1).then_some(())
    })
    .await;
    let lines = manager.lines()[before..].to_vec();
    let began = lines.iter().position(|line| line.starts_with("RELOADING=1\nMONOTONIC_USEC=")).unwrap();
    assert!(began < lines.iter().position(|line| line == "READY=1").unwrap(), "{lines:?}");
    let microseconds: u64 = lines[began].rsplit('=').next().unwrap().parse().unwrap();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    assert!((uptime - microseconds as f64 / 1e6).abs() < 60.0, "{microseconds} at {uptime}");

    rig.agent.terminate().await;
    let last = manager.lines().pop().unwrap();
    assert!(last.starts_with("STOPPING=1"), "{last}");
    assert_eq!(manager.count("WATCHDOG=1"), 0, "nobody has asked for it");
}

#[tokio::test]
async fn the_watchdog_is_fed_while_the_agent_makes_progress() {
    let place = tempfile::tempdir().unwrap();
    let manager = manager(place.path());
    let socket = manager.path().to_str().unwrap().to_owned();
    let rig =
        Rig::with(|setup| setup.environment("NOTIFY_SOCKET", &socket).environment("WATCHDOG_USEC", "400000"))
            .await;
    let fed = async |count: usize| {
        wait_until("the watchdog is fed", LONG, async || {
            (manager.count("WATCHDOG=1") >= count).then_some(())
        })
        .await;
    };
    fed(3).await;
    // A server that doesn't answer is no reason to be restarted.
    rig.sshd.freeze();
    rig.agent.cli(&["open", &rig.sshd.destination()]).await;
    let before = manager.count("WATCHDOG=1");
    fed(before + 3).await;
    rig.agent.signal(Signal::SIGSTOP);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = manager.count("WATCHDOG=1");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(manager.count("WATCHDOG=1"), before);
    rig.agent.signal(Signal::SIGCONT);
    fed(before + 1).await;
    rig.sshd.thaw();
}

#[tokio::test]
async fn sigterm_ends_the_agent_in_five_seconds_though_neither_server_nor_csms_answers() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    rig.open(2).await;
    rig.sshd.freeze();
    rig.csms.freeze();
    let begun = Instant::now();
    let status = rig.agent.terminate().await;
    let took = begun.elapsed();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    rig.sshd.thaw();
    rig.csms.thaw();
    assert_eq!(rig.agent.records(&["--type", "agent-stopped"]).await.len(), 1);
}

#[tokio::test]
async fn sigterm_under_full_load_closes_three_tunnels_and_frees_their_ports() {
    let wayward = Service::wayward().await;
    let port = ports::free();
    let csms = Csms::start(Options::default()).await;
    let mut rig = Rig::unstarted(csms, |setup| setup.script(3, port, &wayward.address())).await;
    rig.agent.start().await;
    rig.authorize(&rig.sshd).await;
    rig.agent.link_is("accepted").await;
    rig.open(1).await;
    rig.open(2).await;
    let opened = rig.agent.cli(&["open", &rig.sshd.destination(), "--script", "3", "--wait"]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    // Bytes without end, for one who reads them and one who doesn't; and a service that takes nothing.
    let mut reader = behave(port, Manner::Flood).await.unwrap();
    let reading = tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
    let _idle = behave(port, Manner::Flood).await.unwrap();
    let mut stalled = behave(port, Manner::Stall).await.unwrap();
    let writing = tokio::spawn(async move { while stalled.write_all(&[0; 64 * 1024]).await.is_ok() {} });
    wait_until("megabytes have passed", LONG, async || {
        (rig.agent.tunnel("3").await["bytes_out"].as_u64() > Some(20_000_000)).then_some(())
    })
    .await;
    let begun = Instant::now();
    assert!(rig.agent.terminate().await.success());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    for port in [rig.remote[0], rig.remote[1], port] {
        wait_until("the server has freed the port", LONG, async || ports::is_free(port).then_some(())).await;
    }
    reading.abort();
    writing.abort();
    let closed = rig.agent.records(&["--type", "tunnel-closed"]).await;
    assert_eq!(closed.iter().filter(|record| record["reason"] == "shutdown").count(), 3, "{closed:?}");
}

/// Neither root nor any capability, from the first start on.
#[tokio::test]
async fn an_ordinary_user_without_capabilities_is_all_that_it_needs() {
    const USER: u32 = 61_234;
    let csms = Csms::start(Options::default()).await;
    let mut rig = Rig::unstarted(csms, |setup| {
        let runner = setup.directory().join("as-user");
        let script = format!(
            "#!/bin/sh\nexec setpriv --reuid {USER} --regid {USER} --clear-groups --bounding-set=-all --inh-caps=-all \"$@\"\n"
        );
        write_program(&runner, &script);
        std::os::unix::fs::chown(setup.directory(), Some(USER), Some(USER)).unwrap();
        setup.runner(runner)
    })
    .await;
    rig.agent.start().await;
    rig.authorize(&rig.sshd).await;
    rig.agent.link_is("accepted").await;
    rig.open(1).await;
    assert!(rig.echoes().await);
    let proc = std::fs::read_to_string(format!("/proc/{}/status", rig.agent.pid())).unwrap();
    assert!(proc.contains(&format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}\n")), "{proc}");
    for set in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(proc.contains(&format!("{set}:\t0000000000000000\n")), "{proc}");
    }
    assert_ne!(rig.agent.status().await["audit"]["state"], "failing");
    assert!(rig.agent.terminate().await.success());
    rig.port_is_free(1).await;
}

#[tokio::test]
async fn nothing_is_written_outside_of_state_and_runtime_directory() {
    let elsewhere = tempfile::tempdir().unwrap();
    let known_hosts = elsewhere.path().join("known_hosts");
    let mut rig = Rig::with(|setup| {
        setup.pin_nothing().ssh(&format!("known_hosts_file = '{}'", known_hosts.display()))
    })
    .await;
    let status = rig.agent.status().await;
    let sandbox = &status["sandbox"];
    assert_eq!(sandbox["no_new_privs"], true);
    let proc = std::fs::read_to_string(format!("/proc/{}/status", rig.agent.pid())).unwrap();
    assert!(proc.contains("NoNewPrivs:\t1"), "{proc}");
    if sandbox["landlock"] == "off" {
        eprintln!("this kernel has no landlock: {sandbox}");
        return;
    }
    // A tunnel that needs nothing there comes up all the same, and says what it couldn't do.
    rig.open(1).await;
    assert!(rig.echoes().await);
    rig.agent.syslog().line_with("host-key-not-kept").await;
    assert!(std::fs::read_dir(elsewhere.path()).unwrap().next().is_none());
    let checked = rig.agent.cli(&["config", "check"]).await;
    assert!(checked.stdout.contains("ssh.known_hosts_file is not below state_dir"), "{checked:?}");
    // What it can read there, it uses.
    std::fs::write(&known_hosts, rig.sshd.known_hosts_line() + "\n").unwrap();
    assert_eq!(rig.csms.change("InvokeCustomScript1", "close").await, "Accepted");
    rig.agent.tunnel_ends("1").await;
    rig.open(1).await;
    assert_eq!(rig.agent.syslog().count("host-key-not-kept"), 1);
}

/// `systemd-analyze`, where there is one.
async fn systemd_analyze(arguments: &[&str]) -> Option<Output> {
    let path = ["/usr/bin/systemd-analyze", "/bin/systemd-analyze"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let Some(path) = path else {
        eprintln!("there is no systemd-analyze here");
        return None;
    };
    Some(run(Command::new(path).args(arguments), "").await)
}

#[tokio::test]
async fn the_systemd_unit_is_sound_and_exposes_little() {
    let place = tempfile::tempdir().unwrap();
    let unit = place.path().join("ocpp-tunnel.service");
    let text = std::fs::read_to_string(files().join("systemd/ocpp-tunnel.service")).unwrap();
    // The program needs to be there for `verify`.
    std::fs::write(&unit, text.replace("/usr/bin/ocpp-tunnel", "/bin/true")).unwrap();
    let unit = unit.to_str().unwrap();
    let Some(verified) = systemd_analyze(&["verify", unit]).await else { return };
    assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""), "{verified:?}");
    let judged = systemd_analyze(&["security", "--offline=true", "--threshold=20", unit]).await.unwrap();
    assert_eq!(judged.code, Some(0), "{}", judged.stdout);
    assert!(judged.stdout.contains("Overall exposure level"), "{judged:?}");
}

#[tokio::test]
async fn the_scripts_of_the_init_systems_are_sound() {
    let scripts = ["busybox/S90ocpp-tunnel", "openrc/ocpp-tunnel", "openwrt/ocpp-tunnel.init"];
    for script in scripts.map(|script| files().join(script)) {
        let mode = std::fs::metadata(&script).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{} can be run", script.display());
        let parsed = run(Command::new("busybox").args(["ash", "-n"]).arg(&script), "").await;
        assert_eq!((parsed.code, parsed.stderr.as_str()), (Some(0), ""), "{parsed:?}");
        let Some(shellcheck) = ["/usr/bin/shellcheck"].into_iter().find(|path| Path::new(path).exists())
        else {
            eprintln!("there is no shellcheck here");
            continue;
        };
        let checked = run(Command::new(shellcheck).args(["--shell=sh"]).arg(&script), "").await;
        assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    }
}

/// Says which functions were called with what, as procd's and OpenRC's own would be.
const CALLED: &str = "called() { echo \"$*\"; };";

#[tokio::test]
async fn procd_is_told_to_restart_for_ever_and_to_run_it_as_its_own_user() {
    let place = tempfile::tempdir().unwrap();
    let script = files().join("openwrt/ocpp-tunnel.init");
    let text = format!(
        "{CALLED} procd_open_instance() {{ called open; }}; procd_close_instance() {{ called close; }}; \
         procd_set_param() {{ called \"$@\"; }}; chown() {{ called chown \"$@\"; }}; \
         . {}; STATE_DIR={dir}/state RUNTIME_DIR={dir}/run PROG=/bin/true; start_service",
        script.display(),
        dir = place.path().display(),
    );
    let ran = run(Command::new("busybox").args(["ash", "-c", &text]), "").await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for line in ["command /bin/true run", "user ocpp-tunnel", "respawn 3600 10 0", "no_new_privs 1", "close"]
    {
        assert!(ran.stdout.lines().any(|said| said == line), "{line}: {}", ran.stdout);
    }
    assert!(place.path().join("state").is_dir() && place.path().join("run").is_dir());
    let shipped = std::fs::read_to_string(files().join("openwrt/10-openwrt.toml")).unwrap();
    let agent = Agent::new(Setup::new().ocpp("mode = 'off'"));
    let text = agent.configuration();
    // The test's own directories are said first, and must give way.
    agent.drop_in("10-openwrt.toml", &shipped);
    let shown = agent.cli(&["config", "show"]).await.stdout;
    assert!(shown.contains("state_dir = \"/etc/ocpp-tunnel/state\""), "{text}\n{shown}");
}

#[tokio::test]
async fn openrc_checks_the_configuration_before_it_starts_anything() {
    let script = files().join("openrc/ocpp-tunnel");
    let text = format!(
        "{CALLED} checkpath() {{ called checkpath \"$@\"; }}; ebegin() {{ called begin; }}; eend() {{ called end \"$@\"; }}; \
         . {}; tool() {{ called tool \"$@\" >&2; }}; command=tool; start_pre && reload; \
         tool() {{ return 78; }}; start_pre || called refused; reload",
        script.display()
    );
    let ran = run(Command::new("busybox").args(["ash", "-c", &text]), "").await;
    let directories = "checkpath --directory --mode 0750 --owner ocpp-tunnel:ocpp-tunnel /var/lib/ocpp-tunnel /run/ocpp-tunnel";
    assert_eq!(
        ran.stdout.lines().collect::<Vec<_>>(),
        [directories, "begin", "end 0", directories, "refused", "begin", "end 78"],
        "{ran:?}"
    );
    assert_eq!(ran.stderr, "tool config check\ntool config reload\n");
}

/// The BusyBox script with the test's agent, run by BusyBox's own shell and tools.
struct BusyBox {
    agent: Agent,
    script: PathBuf,
    path: String,
}

impl BusyBox {
    fn new(agent: Agent) -> Self {
        let directory = agent.directory().to_owned();
        let bin = directory.join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        for tool in ["cat", "tr", "grep", "id", "mkdir", "chown", "chmod", "rm", "sleep", "sh"] {
            symlink("/bin/busybox", bin.join(tool)).unwrap();
        }
        let program = agent.binary().as_std().get_program().to_owned();
        // The name decides what the loop is known by.
        let script = directory.join("S90ocpp-tunnel");
        let text = std::fs::read_to_string(files().join("busybox/S90ocpp-tunnel")).unwrap();
        let settings = format!(
            "PROG={}\nCONFIG={}\nSTATE_DIR={}\nPIDFILE={}/pid\nPAUSE=1\n",
            program.display(),
            agent.config_path().display(),
            agent.state_dir().display(),
            directory.display(),
        );
        let defaults = directory.join("defaults");
        std::fs::write(&defaults, settings).unwrap();
        let text = text
            .replace("#!/bin/sh", &format!("#!{}/sh", bin.display()))
            .replace("/etc/default/ocpp-tunnel", defaults.to_str().unwrap());
        write_program(&script, &text);
        Self { agent, script, path: bin.display().to_string() }
    }

    async fn script(&self, action: &str) -> Output {
        run(Command::new(&self.script).arg(action).env("PATH", &self.path), "").await
    }

    async fn answers(&self) {
        wait_until("the agent answers", LONG, async || {
            (self.agent.cli(&["status"]).await.code == Some(0)).then_some(())
        })
        .await;
    }

    async fn pid(&self) -> u32 {
        let pid = self.agent.status().await["agent"]["pid"].as_u64().unwrap();
        u32::try_from(pid).unwrap()
    }
}

#[tokio::test]
async fn busybox_starts_reloads_restarts_and_stops_it() {
    if !Path::new("/bin/busybox").exists() {
        eprintln!("there is no BusyBox here");
        return;
    }
    let busybox = BusyBox::new(Agent::new(Setup::new().ocpp("mode = 'off'")));
    assert_eq!(busybox.script("status").await.code, Some(3));
    let started = busybox.script("start").await;
    assert_eq!((started.code, started.stderr.as_str()), (Some(0), ""), "{started:?}");
    busybox.answers().await;
    assert_eq!(busybox.script("status").await.code, Some(0));
    let first = busybox.pid().await;
    assert!(busybox.script("start").await.stdout.contains("runs already"));

    busybox.agent.drop_in("50.toml", "[policy]\nmax_duration = '1h'\n");
    let reloaded = busybox.script("reload").await;
    assert_eq!(reloaded.stdout, "policy.max_duration: in force\n", "{reloaded:?}");
    assert_eq!(busybox.pid().await, first);

    // A crash is no end.
    process::kill_tree(first);
    wait_until("another agent runs", LONG, async || {
        let status = busybox.agent.cli(&["status", "--json"]).await;
        (status.code == Some(0) && !status.stdout.contains(&format!("\"pid\": {first}\n"))).then_some(())
    })
    .await;
    let second = busybox.pid().await;
    assert_ne!(second, first);

    let stopped = busybox.script("stop").await;
    assert_eq!((stopped.code, stopped.stderr.as_str()), (Some(0), ""), "{stopped:?}");
    assert!(!Path::new(&format!("/proc/{second}")).exists());
    assert_eq!(busybox.script("status").await.code, Some(3));
    assert!(busybox.script("stop").await.stdout.contains("doesn't run"));
    assert_eq!(busybox.agent.records(&["--type", "agent-stopped"]).await.len(), 1);

    // A mistake is told to who starts it, and nothing runs.
    busybox.agent.drop_in("60.toml", "x = 1\n");
    let refused = busybox.script("start").await;
    assert!(
        refused.code == Some(1) && refused.stderr.contains("60.toml:1:1: unknown key `x`"),
        "{refused:?}"
    );
    // So is a file that only root may read, since the agent is the owner of its state.
    let secret = busybox.agent.directory().join("password");
    std::fs::write(&secret, "correct horse battery").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let text = format!(
        "[ocpp]\nmode = 'direct'\nurl = 'wss://csms.example.com'\nidentity = 'CP1'\nauthorization_key_file = '{}'\n",
        secret.display()
    );
    busybox.agent.drop_in("60.toml", &text);
    let state_dir = busybox.agent.state_dir();
    for directory in [&state_dir, &busybox.agent.runtime_dir()] {
        std::os::unix::fs::chown(directory, Some(61_234), Some(61_234)).unwrap();
    }
    let refused = busybox.script("start").await;
    assert!(refused.code == Some(1) && refused.stderr.contains("/password"), "{refused:?}");
}

#[tokio::test]
async fn systemds_journal_gets_each_line_once() {
    use std::os::unix::fs::MetadataExt;
    let setup = Setup::new().ocpp("mode = 'off'");
    // Standard error goes there, as it goes to the journal's socket below systemd.
    let log = setup.directory().join("log");
    std::fs::write(&log, "").unwrap();
    let stream = std::fs::metadata(&log).unwrap();
    let stream = format!("{}:{}", stream.dev(), stream.ino());
    let agent = Agent::run(setup.environment("JOURNAL_STREAM", &stream)).await;
    agent.syslog().line_with("agent-started").await;
    assert_eq!(agent.log(), "");
    let other = Agent::run(Setup::new().ocpp("mode = 'off'").environment("JOURNAL_STREAM", &stream)).await;
    assert!(other.log().contains("agent-started"), "its standard error is another one");
}
