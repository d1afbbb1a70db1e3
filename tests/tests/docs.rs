//! The documentation: what each page says is done, on machines of the test's own.
//!
//! `tests/src/page.rs` tells what becomes of a block. A page that isn't named here fails, and so does an exception whose
//! block has gone.

use std::collections::BTreeSet;

use ocpp_tunnel_tests::page;
use ocpp_tunnel_tests::sshd::PASSWORD;
use ocpp_tunnel_tests::world::{Exception, Then, World};

/// Blocks that aren't run as they stand.
const EXCEPTIONS: &[Exception] = &[
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

/// The agent may have been started just now.
const OPEN: &str = "for try in 1 2 3 4 5 6; do ocpp-tunnel status >/dev/null && break; sleep 0.5; done; ocpp-tunnel open --wait";

const PASSWORD_LINE: &str = "correct horse battery\n";

#[test]
fn every_page_is_played() {
    let there: BTreeSet<String> = page::pages().into_iter().collect();
    let played: BTreeSet<String> = PAGES.iter().map(|page| (*page).to_owned()).collect();
    assert_eq!(there, played);
    assert_eq!(PASSWORD_LINE.trim_end(), PASSWORD);
}

#[test]
fn every_exception_is_still_in_its_page() {
    for exception in EXCEPTIONS {
        let is_there = page::blocks(exception.page).iter().any(|block| block.text.starts_with(exception.begins));
        assert!(is_there, "{exception:?}");
    }
}
