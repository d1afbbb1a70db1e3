//! The Debian package of `cross/package`, installed into a small system, used, upgraded and removed, as operators do; and what
//! lies beside the packages.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "helpers outside of test functions; what is left out for want of a tool is said"
)]

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::process::Stdio;

use ocpp_tunnel_tests::LONG;
use ocpp_tunnel_tests::packages::{
    ARM, ARM64, Around, NATIVE, Target, agents, answers, left_behind, owner_of, package, packages,
};
use ocpp_tunnel_tests::process::{Daemon, Output, run};
use ocpp_tunnel_tests::root::Root;
use tokio::process::Command;

async fn runs(command: &mut Command) -> Output {
    let output = run(command, "").await;
    assert_eq!(output.code, Some(0), "{command:?}: {output:?}");
    output
}

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
    let running = agents(&root);
    assert!(
        !running.is_empty() && running.iter().all(|pid| owner_of(*pid) == account),
        "{:?}",
        root.processes()
    );
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

/// systemd itself isn't run here: what it is told is what the package decides.
#[tokio::test]
async fn systemd_is_told_to_start_what_is_configured_to_restart_it_and_to_stop_it() {
    let Some(deb) = ARM.deb() else { return };
    let root = ARM.debian_root().await;
    std::fs::copy(&deb, root.path("/root/first.deb")).unwrap();
    let later = later(&deb, &root).await;
    root.does(&["mkdir", "-p", "/run/systemd/system"]).await;
    // It says that no service is to be started in this root.
    root.does(&["rm", "-f", "/usr/sbin/policy-rc.d"]).await;
    let systemctl =
        "#!/bin/sh\necho \"$@\" >>/root/told\ncase \"$*\" in *is-enabled*) echo enabled ;; esac\n";
    root.write("/usr/local/bin/systemctl", systemctl);
    root.does(&["chmod", "755", "/usr/local/bin/systemctl"]).await;
    let told = || {
        let told = root.read("/root/told");
        std::fs::remove_file(root.path("/root/told")).unwrap();
        let actions =
            told.lines().filter(|line| line.contains("ocpp-tunnel.service") && line.contains("start"));
        let others = told.lines().filter(|line| line.contains("stop ocpp-tunnel.service"));
        let actions = actions.chain(others).map(|line| line.replace("--quiet ", "").replace("--system ", ""));
        actions.collect::<Vec<_>>()
    };

    let installed = root.does(&["dpkg", "-i", "/root/first.deb"]).await;
    assert!(installed.contains("isn't started, since it isn't configured yet: "), "{installed}");
    assert!(installed.contains("ocpp.identity is missing"), "{installed}");
    assert_eq!(told(), Vec::<String>::new());

    root.does(&["dpkg", "--purge", "ocpp-tunnel"]).await;
    assert_eq!(told(), ["stop ocpp-tunnel.service"]);
    // As in an image that has its configuration already.
    root.does(&["mkdir", "-p", "/etc/ocpp-tunnel/config.d"]).await;
    root.write("/etc/ocpp-tunnel/config.d/10-off.toml", "[ocpp]\nmode = 'off'\n");
    let installed = root.does(&["dpkg", "-i", "/root/first.deb"]).await;
    assert!(!installed.contains("isn't started"), "{installed}");
    assert_eq!(told(), ["start ocpp-tunnel.service"]);

    root.does(&["dpkg", "-i", &later]).await;
    assert_eq!(told(), ["try-restart ocpp-tunnel.service"], "what was stopped stays so");
    root.does(&["dpkg", "--remove", "ocpp-tunnel"]).await;
    assert_eq!(told(), ["stop ocpp-tunnel.service"]);
    root.does(&["dpkg", "-i", &later]).await;
    assert_eq!(told(), ["start ocpp-tunnel.service"], "whatever was installed before it was removed");
    root.does(&["dpkg", "-i", "--force-downgrade", "/root/first.deb"]).await;
    assert_eq!(told(), ["try-restart ocpp-tunnel.service"]);
}

/// The machine that a program is for, as its ELF header has it.
async fn machine_of(program: &str) -> u16 {
    let header = format!("{program} | head -c 20 | od -An -tu1 | tr -s ' \\n' ' '");
    let header = runs(Command::new("bash").args(["-c", &header])).await.stdout;
    let bytes: Vec<u16> = header.split_whitespace().map(|byte| byte.parse().unwrap()).collect();
    assert_eq!(bytes[..4], [0x7f, 0x45, 0x4c, 0x46], "{program}");
    bytes[18] | (bytes[19] << 8)
}

#[tokio::test]
async fn each_package_holds_a_program_for_its_own_machine() {
    for (target, machine) in [(ARM, 40), (ARM64, 183), (NATIVE, 62)] {
        let Some(deb) = target.deb() else { continue };
        let architecture = runs(Command::new("dpkg-deb").args(["-f"]).arg(&deb).arg("Architecture")).await;
        assert_eq!(architecture.stdout.trim(), target.debian);
        let (deb, ipk, tarball) = (deb, target.ipk().unwrap(), target.tarball().unwrap());
        for program in [
            format!("dpkg-deb --fsys-tarfile '{}' | tar -xO ./usr/bin/ocpp-tunnel", deb.display()),
            format!("tar -xzOf '{}' ./data.tar.gz | tar -xzO ./usr/bin/ocpp-tunnel", ipk.display()),
            format!("tar -xzOf '{}' --wildcards '*/bin/ocpp-tunnel'", tarball.display()),
        ] {
            assert_eq!(machine_of(&program).await, machine, "{program}");
        }
    }
}

#[tokio::test]
async fn debians_own_critic_finds_no_fault_with_the_package() {
    for target in [ARM, ARM64, NATIVE] {
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
        "deb/preinst",
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
