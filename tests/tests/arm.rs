//! The main story with the binary that controllers get, for ARMv7 with musl, under `qemu-arm-static`.

use std::path::Path;

use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::rig::{PAGE, Rig};
use ocpp_tunnel_tests::ssh::Person;
use ocpp_tunnel_tests::sshd::{ACCOUNT, Sshd};

#[tokio::test]
async fn a_trigger_opens_a_tunnel_with_the_armv7_binary() {
    let Ok(binary) = std::env::var("OCPP_TUNNEL_ARM") else {
        eprintln!("!!! SKIPPED: OCPP_TUNNEL_ARM doesn't name the armv7 binary; tests/run builds it and does");
        return;
    };
    let controller = Sshd::start().await;
    let person = Person::new().await;
    controller.authorize(&person.public_line());
    let csms = Csms::start(Options { tls: true, ..Options::default() }).await;
    let login_port = ocpp_tunnel_tests::ports::free();
    let mut rig = Rig::unstarted(csms, |setup| {
        setup.binary(Path::new(&binary)).runner("qemu-arm-static").script(
            3,
            login_port,
            &controller.address(),
        )
    })
    .await;
    rig.agent.start().await;
    rig.authorize(&rig.sshd).await;
    rig.csms.wait_for("boots", 1).await;
    assert_eq!(rig.agent.link_is("accepted").await["profile"], 2);

    rig.open(1).await;
    rig.echo_returns().await;
    rig.open(2).await;
    assert!(rig.fetch_page().await.ends_with(PAGE));
    rig.open(3).await;
    let login = person.runs("id -un", ACCOUNT, login_port, controller.host_key()).await;
    assert_eq!((login.code, login.stdout.trim()), (Some(0), ACCOUNT), "{login:?}");

    assert_eq!(rig.csms.change("InvokeCustomScript1", "root@127.0.0.1;id").await, "Rejected");
    assert_eq!(rig.csms.change("InvokeCustomScript1", "").await, "Accepted");
    rig.port_is_free(1).await;
    rig.agent.kill().await;
    rig.agent.start().await;
    rig.agent.tunnel_is("2", "up").await;
    assert!(rig.fetch_page().await.ends_with(PAGE));
    assert_eq!(rig.agent.terminate().await.code(), Some(0));
    rig.port_is_free(2).await;
}
