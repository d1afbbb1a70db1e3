//! `docs/install.md`: its commands do what it says.
#![allow(clippy::unwrap_used, reason = "helpers outside of test functions")]

use ocpp_tunnel_tests::packages::{ARM, agents, answers, busybox, openwrt, packages, unpack};
use ocpp_tunnel_tests::root::Root;

const PAGE: &str = include_str!("../../docs/install.md");

/// The commands below a heading of the page, block by block.
fn commands(heading: &str) -> Vec<String> {
    let (_, below) = PAGE.split_once(&format!("# {heading}\n")).unwrap();
    let section = below.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.map(str::to_owned).collect()
}

/// A block that nobody plays must be named here, with the reason.
#[test]
fn every_block_of_the_page_is_played() {
    let played = [
        ("Installing", 1),
        ("Debian", 3),
        ("OpenWrt", 3),
        ("The tarball", 4),
        ("Through its own tunnel", 1),
        ("Into an image", 1),
        // What makes the packages that are played here.
        ("From source", 1),
    ];
    let written: Vec<(&str, usize)> = PAGE
        .split("\n## ")
        .map(|section| section.trim_start_matches("# ").split('\n').next().unwrap())
        .map(|heading| (heading, commands(heading).len()))
        .filter(|(_, blocks)| *blocks > 0)
        .collect();
    assert_eq!(written, played);
    assert_eq!(PAGE.matches("```").count(), 2 * played.iter().map(|(_, blocks)| blocks).sum::<usize>());
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
