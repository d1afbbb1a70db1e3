//! Dropbear's server at the other end.

use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::dropbear::Dropbear;
use ocpp_tunnel_tests::rig::{PAGE, Rig};
use ocpp_tunnel_tests::{LONG, wait_until};

#[tokio::test]
async fn a_trigger_opens_a_tunnel_to_dropbear_and_an_empty_value_closes_it() {
    let dropbear = Dropbear::start().await;
    let csms = Csms::start(Options::default()).await;
    let mut rig =
        Rig::unstarted(csms, |setup| setup.pin(&dropbear.known_hosts_line()).allow(&dropbear.destination()))
            .await;
    rig.agent.start().await;
    let key = rig.agent.cli(&["keys", "show", "--authorized-keys", "--dropbear"]).await;
    assert_eq!(key.code, Some(0), "{key:?}");
    dropbear.authorize(&key.stdout);
    rig.agent.link_is("accepted").await;

    for (number, key) in [("1", "InvokeCustomScript1"), ("2", "InvokeCustomScript2")] {
        assert_eq!(rig.csms.change(key, &dropbear.destination()).await, "Accepted");
        rig.agent.tunnel_is(number, "up").await;
    }
    rig.echo_returns().await;
    assert!(rig.fetch_page().await.ends_with(PAGE));
    assert!(dropbear.log().contains("Pubkey auth succeeded for 'support'"), "{}", dropbear.log());

    assert_eq!(rig.csms.change("InvokeCustomScript1", "").await, "Accepted");
    rig.port_is_free(1).await;
    assert!(rig.fetch_page().await.ends_with(PAGE));
    assert!(rig.agent.terminate().await.success());
    rig.port_is_free(2).await;
    wait_until("dropbear saw both connections end", LONG, async || {
        (dropbear.log().matches("Exit (support)").count() == 2).then_some(())
    })
    .await;
}
