//! The documentation: what each page says is done, on machines of the test's own.
//!
//! `tests/src/page.rs` tells what becomes of a block. A page that isn't named here fails, and so does an exception whose
//! block has gone.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use ocpp_tunnel_tests::page;
use ocpp_tunnel_tests::sshd::PASSWORD;
use ocpp_tunnel_tests::world::{self, Exception, Then, World};

/// Blocks that aren't run as they stand.
const EXCEPTIONS: &[Exception] = &[
    Exception {
        page: "README.md",
        begins: "cargo demo",
        why: "tests/run, which runs this, runs the demo",
        instead: None,
    },
    Exception {
        page: "docs/BENCHMARKS.md",
        begins: "cargo build --release -p ocpp-tunnel -p ocpp-tunnel-tests --bin ocpp-tunnel --bin bench",
        why: "minutes of optimised builds and of measuring; tests/run --soak does it",
        instead: None,
    },
    Exception {
        page: "docs/service.md",
        begins: "cp cross/files/openwrt/ocpp-tunnel.init",
        why: "there is no procd; tests/tests/service.rs plays the script",
        instead: None,
    },
    Exception {
        page: "docs/service.md",
        begins: "install -m 755 cross/files/openrc/ocpp-tunnel",
        why: "there is no OpenRC; tests/tests/service.rs plays the script",
        instead: None,
    },
];

/// Pages without anything to do.
const READ: &[&str] = &[
    "docs/BENCHMARKS.md",
    "docs/README.md",
    "docs/audit.md",
    "docs/diagnostics.md",
    "docs/ocpp.md",
    "docs/reports.md",
];

/// Each page, and the story in which it is played.
macro_rules! pages {
    ($($page:literal => $name:ident($world:ident) $body:block)*) => {
        const PAGES: &[&str] = &[$($page,)*];
        $(
            #[tokio::test]
            async fn $name() {
                let mut $world = $body;
                $world.play($page, EXCEPTIONS).await;
            }
        )*
    };
}

pages! {
    "README.md" => the_readme_can_be_followed(world) {
        World::new().await
    }
    "docs/bridge.md" => the_bridge_is_set_up_as_its_page_says(world) {
        let world = World::running().await;
        world.certificate("bridge").await;
        world
    }
    "docs/check.md" => the_self_check_shows_what_its_page_does(world) {
        let world = World::new().await;
        world.controller.root("ocpp-tunnel keys show").await;
        world.server.root("systemctl stop ssh; busybox httpd -p 203.0.113.7:443 -h /srv").await;
        world
    }
    "docs/configuration.md" => the_configuration_page_is_sound(world) {
        World::new().await
    }
    "docs/host-keys.md" => host_keys_are_pinned_as_their_page_says(world) {
        World::new().await
    }
    "docs/keys.md" => keys_are_installed_and_changed_as_their_page_says(world) {
        let mut world = World::new().await;
        world.answers("ocpp-tunnel keys install", &[("yes", "yes\n"), ("assword", PASSWORD_LINE)]);
        world.before("charger.pub", Then::On("controller", "ssh-keygen -q -t ed25519 -N '' -f ca"));
        world
    }
    "docs/ocpp-security.md" => the_link_is_protected_as_its_page_says(world) {
        let world = World::new().await;
        world.certificate("client").await;
        world.controller.root("cp /etc/ocpp-tunnel/client.pem /etc/ocpp-tunnel/csms-ca.pem").await;
        world
    }
    "docs/troubleshooting.md" => troubles_look_as_their_page_shows_them(world) {
        let mut world = World::new().await;
        world.before("logs -n 20", Then::Runs);
        world.before("connection refused; it keeps", Then::On("server", "systemctl stop ssh"));
        world.before("refused the key SHA256:… for user support; it", Then::On("server", "systemctl start ssh"));
        world.before("refused the key SHA256:… for user support; it", Then::On("controller", "ocpp-tunnel close 1"));
        world.before("1111; it keeps trying", Then::On("controller", "ocpp-tunnel close 1"));
        world.before("1111; it keeps trying", Then::Authorised);
        world.before("1111; it keeps trying", Then::On("server", "busybox httpd -f -p 1111 </dev/null >/dev/null 2>&1 & echo $! >/run/taken"));
        world.before("known_hosts:1)", Then::On("controller", "ocpp-tunnel close 1"));
        world.before("known_hosts:1)", Then::On("server", "kill $(cat /run/taken); rm /etc/ssh/ssh_host_ed25519_key*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; systemctl reload ssh"));
        world
    }
    "docs/migration.md" => a_controller_moves_from_the_scripts_and_back(world) {
        let world = World::bare().await;
        world.account("/usr/sbin/nologin").await;
        world.controller.root(VENDOR).await;
        let key = world.controller.root("dropbearkey -y -f /home/charge/.ssh/id_rsa | grep ^ssh-rsa").await;
        world.server.write("/home/support/.ssh/authorized_keys", &key).await;
        world.server.root("chown -R support /home/support/.ssh && chmod 700 /home/support/.ssh").await;
        let mut world = world;
        world.before("systemctl disable --now", Then::Authorised);
        world.before("systemctl disable --now", Then::On("controller", SCRIPT));
        world.before("systemctl disable --now", Then::On("server", LISTENS));
        world
    }
    "docs/security.md" => production_settings_are_accepted(world) {
        let world = World::new().await;
        world.controller.root("echo CP001 >/etc/ocpp-tunnel/identity; cp /etc/ssl/certs/ca-certificates.crt /etc/ocpp-tunnel/csms-ca.pem").await;
        world
    }
    "docs/service.md" => the_service_is_set_up_as_its_page_says(world) {
        let mut world = World::new().await;
        world.before("ocpp-tunnel config check\n", Then::On("controller", CONFIGURED));
        world.before("20-credential.toml", Then::On("controller", CREDENTIAL));
        world.before("S90ocpp-tunnel start", Then::On("controller", "systemctl stop ocpp-tunnel; rm /etc/ocpp-tunnel/config.d/*"));
        world
    }
    "docs/first-tunnel.md" => the_first_tunnel_comes_up_as_its_page_says(world) {
        let mut world = World::bare().await;
        world.answers("passwd support", &[("New password", PASSWORD_LINE), ("Retype", PASSWORD_LINE)]);
        world.answers("ocpp-tunnel keys install", &[("yes", "yes\n"), ("assword", PASSWORD_LINE)]);
        world
    }
    "docs/server.md" => the_server_is_set_up_as_its_page_says(world) {
        let mut world = World::new().await;
        world.before("ssh -J", Then::Authorised);
        world.before("ssh -J", Then::Runs);
        world.before("ssh -J", Then::On("controller", "ocpp-tunnel open --wait; ocpp-tunnel open --script 2 --wait"));
        world.before("Host CP*", Then::On("controller", "ocpp-tunnel close --all; systemctl restart ocpp-tunnel"));
        world.before("Host CP*", Then::On("controller", OPEN));
        world.server.root("deluser --quiet --remove-home support").await;
        world
    }
}

/// Somebody has written into the shipped file what it asks for.
const CONFIGURED: &str = "cd /etc/ocpp-tunnel; sed -i 's/^#identity = .*/identity = \"CP001\"/; s/^#url = .*/url = \"wss:\\/\\/csms.example.com\\/ocpp\"/' config.toml
    sed -i 's/^#authorization_key_file = \\(.*authorization-key\"\\)/authorization_key_file = \\1/' config.toml; chown ocpp-tunnel authorization-key";
/// What systemd shows to the service.
const CREDENTIAL: &str = "install -d /run/credentials/ocpp-tunnel.service
    install -m 600 -o ocpp-tunnel /etc/ocpp-tunnel/authorization-key /run/credentials/ocpp-tunnel.service/";
/// A controller as the vendor made it; the scripts' own text doesn't matter.
const VENDOR: &str = "cd /home/charge; for n in 1 2; do echo '#!/bin/sh' >custom_script$n.sh; chmod 755 custom_script$n.sh; done
    dropbearkey -t rsa -s 2048 -f .ssh/id_rsa >/dev/null 2>&1; chown charge .ssh/id_rsa";
/// What the vendor's script did.
const SCRIPT: &str = "ocpp-tunnel close 1
    dbclient -y -y -f -N -i /home/charge/.ssh/id_rsa -R 1111:localhost:22 support@support.example.com </dev/null >/dev/null 2>&1";
/// And that it came to something, with the line that is narrower than the old one.
const LISTENS: &str = "for try in 1 2 3 4 5 6 7 8 9; do ss -Hltn sport = :1111 | grep -q 127.0.0.1 && exit 0; sleep 0.3; done; exit 1";
/// The agent may have been started just now.
const OPEN: &str = "for try in 1 2 3 4 5 6; do ocpp-tunnel status >/dev/null && break; sleep 0.5; done; ocpp-tunnel open --wait";

const PASSWORD_LINE: &str = "correct horse battery\n";

#[test]
fn pages_without_commands_are_sound() {
    for page in READ {
        world::read(page, EXCEPTIONS);
    }
}

#[test]
fn every_page_is_played_here_or_by_a_test_that_names_it() {
    let there = page::pages();
    for page in PAGES.iter().chain(READ) {
        assert!(there.iter().any(|name| name == page), "there is no {page}");
    }
    let stories = std::fs::read_dir(page::root().join("tests/tests")).unwrap().flatten();
    let stories: Vec<String> = stories.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect();
    for page in there.iter().filter(|page| !PAGES.iter().chain(READ).any(|name| name == page)) {
        let named = format!("{page}\"");
        assert!(stories.iter().any(|story| story.contains(&named)), "nobody plays {page}");
    }
    assert_eq!(PASSWORD_LINE.trim_end(), PASSWORD);
}

#[test]
fn every_exception_is_still_in_its_page() {
    for exception in EXCEPTIONS {
        let is_there =
            page::blocks(exception.page).iter().any(|block| block.text.starts_with(exception.begins));
        assert!(is_there, "{exception:?}");
    }
}
