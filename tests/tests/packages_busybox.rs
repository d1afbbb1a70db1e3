//! The tarball and the OpenWrt package of `cross/package`, in systems of BusyBox alone.
#![allow(clippy::unwrap_used, reason = "helpers outside of test functions")]

use ocpp_tunnel_tests::packages::{
    ARM, Around, NATIVE, Target, agents, answers, busybox, left_behind, openwrt, owner_of, unpack,
};
use ocpp_tunnel_tests::process::run;

// === the tarball ===

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
    assert!(!first.is_empty() && first.iter().all(|pid| owner_of(*pid) == account), "{:?}", root.processes());

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
