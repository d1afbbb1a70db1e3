//! Real charge points behind the bridge: Python's `ocpp` and the client of JavaScript's `ocpp-rpc`, each with the other's
//! CSMS.
#![allow(clippy::expect_used, reason = "helpers of tests fail the test")]

use std::time::{Duration, Instant};

use ocpp_tunnel_tests::agent::Setup;
use ocpp_tunnel_tests::charge_point::{self, ChargePoint};
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::day::is_the_same_on_both_sides;
use ocpp_tunnel_tests::peer::{Library, Line};
use ocpp_tunnel_tests::site::Site;
use ocpp_tunnel_tests::tls::Authority;
use ocpp_tunnel_tests::{LONG, SHORT, wait_until};
use serde_json::{Value, json};

/// Who plays the CSMS, and who the controller.
const PAIRS: [[Library; 2]; 2] = [[Library::Ocpp, Library::OcppRpc], [Library::OcppRpc, Library::Ocpp]];

fn with(library: Library) -> Options {
    Options { library, ..Options::default() }
}

/// Waits until the CSMS has seen so many connections end, and returns the last end.
async fn ending(csms: &mut Csms, count: usize) -> Value {
    wait_until("the CSMS hears the end", LONG, async || csms.endings().await.get(count - 1).cloned()).await
}

fn actions(lines: &[Line]) -> Vec<&str> {
    lines.iter().filter(|line| line.kind == Some(2)).map(|line| &*line.action).collect()
}

// === what passes ===

#[tokio::test]
async fn later_versions_of_ocpp_pass_untouched_and_get_none_of_our_keys() {
    for [of_csms, of_controller] in PAIRS {
        for protocols in [&["ocpp2.0.1", "ocpp1.6"], &["ocpp2.1", "ocpp2.0.1"]] {
            let options = Options { protocols, lenient: true, ..with(of_csms) };
            let mut site = Site::start(options).await;
            let options = charge_point::Options { protocols, ..site.controller(of_controller) };
            let mut controller = ChargePoint::booted(options).await;
            assert_eq!(controller.subprotocol().await, protocols[0], "{of_controller:?}");
            assert_eq!(site.rig.csms.subprotocol().await, protocols[0], "{of_csms:?}");
            assert_eq!(site.legs_are("CP001", "connected").await["subprotocol"], protocols[0]);

            // These would be ours over OCPP 1.6.
            let destination = site.rig.sshd.destination();
            for text in [
                r#"[2,"a","GetConfiguration",{"key":["SSHClientKey"]}]"#.to_owned(),
                format!(
                    r#"[2,"b","ChangeConfiguration",{{"key":"InvokeCustomScript1","value":"{destination}"}}]"#
                ),
            ] {
                site.rig.csms.say(&text, None).await;
            }
            let own = is_the_same_on_both_sides(&mut controller, &mut site.rig.csms).await;
            assert_eq!(own.calls, 0, "nothing of ours goes up");
            let received = controller.transcript().await.received;
            assert_eq!(actions(&received), ["GetConfiguration", "ChangeConfiguration"], "{of_csms:?}");
            assert_eq!(site.rig.sshd.connections(), 0);
        }
    }
}

#[tokio::test]
async fn what_the_csms_says_to_credentials_and_identity_reaches_the_controller() {
    for [of_csms, of_controller] in PAIRS {
        let mut site = Site::with(with(of_csms), |setup| setup.bridge("identities = ['CP002']")).await;
        let usual = site.controller(of_controller);

        // Whom the bridge doesn't know, the CSMS isn't asked about.
        let options = charge_point::Options { identity: "CP003".into(), ..usual.clone() };
        let mut stranger = ChargePoint::start(options).await;
        stranger.wait_for("refused", 1).await;
        assert_eq!(stranger.endings().await[0]["status"], 404, "{of_controller:?}");
        assert_eq!(site.rig.csms.counts().await.refused, 0, "{of_csms:?}");
        stranger.kill().await;

        for (identity, password, status) in [("CP002", "correct horse battery", 404), ("CP001", "wrong", 401)]
        {
            let before = site.rig.csms.counts().await.refused;
            let options = charge_point::Options {
                identity: identity.into(),
                password: Some(password.into()),
                ..usual.clone()
            };
            let mut refused = ChargePoint::start(options).await;
            refused.wait_for("refused", 1).await;
            assert_eq!(refused.endings().await[0]["status"], status, "{of_controller:?} as {identity}");
            assert!(site.rig.csms.counts().await.refused > before, "the CSMS was asked");
            let words = site.rig.agent.cli(&["status"]).await.stdout;
            assert!(words.contains(&status.to_string()), "{words}");
            refused.kill().await;
        }

        let mut controller = ChargePoint::booted(usual).await;
        assert_eq!(controller.count("refused").await, 0, "{of_controller:?}");
    }
}

#[tokio::test]
async fn close_codes_and_losses_pass_both_ways() {
    for [of_csms, of_controller] in PAIRS {
        let mut site = Site::start(with(of_csms)).await;
        let mut controller = site.booted(of_controller).await;

        controller.close(4001, "bye ✓").await;
        let heard = ending(&mut site.rig.csms, 1).await;
        assert_eq!(heard, json!({"code": 4001, "reason": "bye ✓"}), "{of_csms:?}");
        let legs = site.legs_are("CP001", "waiting").await;
        assert!(legs["last_closed"]["reason"].as_str().is_some_and(|why| why.contains("4001")), "{legs}");

        controller.connect().await;
        controller.wait_for("boots", 2).await;
        site.rig.csms.close_connection(4002, "maintenance").await;
        let maintenance = json!({"code": 4002, "reason": "maintenance"});
        // Some count the end that they made themselves as one, so the number says nothing.
        wait_until(&format!("{of_controller:?} hears of it"), LONG, async || {
            controller.endings().await.contains(&maintenance).then_some(())
        })
        .await;

        // A loss is one on the other side as well, and everybody comes back.
        controller.wait_for("boots", 3).await;
        site.rig.csms.kill().await;
        controller.wait_for("lost", 2).await;
        site.rig.csms.resume().await;
        controller.wait_for("boots", 4).await;
        controller.kill().await;
        ending(&mut site.rig.csms, 1).await;
        controller.resume().await;
        controller.wait_for("boots", 1).await;
    }
}

#[tokio::test]
async fn another_controller_of_the_site_has_none_of_our_keys() {
    for [of_csms, of_controller] in PAIRS {
        let options = Options { identity: "CP002".into(), ..with(of_csms) };
        let mut site =
            Site::with(options, |setup| setup.ocpp("identity = 'CP001'").bridge("identities = ['CP002']"))
                .await;
        let options = charge_point::Options { identity: "CP002".into(), ..site.controller(of_controller) };
        let mut controller = ChargePoint::booted(options).await;
        let keys = site.rig.csms.get(&["InvokeCustomScript1", "HeartbeatInterval"]).await;
        assert_eq!(keys["unknown_key"], json!(["InvokeCustomScript1"]), "{of_csms:?}");
        let destination = site.rig.sshd.destination();
        assert_eq!(site.rig.csms.change("InvokeCustomScript1", &destination).await, "NotSupported");
        let own = is_the_same_on_both_sides(&mut controller, &mut site.rig.csms).await;
        assert_eq!(own.calls, 0, "{of_csms:?}");
        assert_eq!(site.legs("CP001").await["state"], "waiting");
    }
}

// === tunnels ===

#[tokio::test]
async fn a_tunnel_is_opened_through_the_bridge_and_the_controller_hears_nothing_of_it() {
    for [of_csms, of_controller] in PAIRS {
        let mut site = Site::start(with(of_csms)).await;
        let mut controller = site.booted(of_controller).await;
        site.rig.open(1).await;
        site.rig.echo_returns().await;
        let status = site.rig.csms.value("InvokeCustomScript1Status").await;
        assert!(status.starts_with("up "), "{of_csms:?}: {status}");
        wait_until("the CSMS is told", LONG, async || {
            let told = site.rig.csms.calls("DataTransfer").await;
            told.iter().any(|payload| payload["vendorId"] == "org.ocpp-tunnel").then_some(())
        })
        .await;
        let all = site.rig.csms.get(&[]).await;
        let keys = all["configuration_key"].as_array().map_or(0, Vec::len);
        assert_eq!(keys, 3 + 5, "the controller's and ours: {all}");

        assert_eq!(site.rig.csms.change("InvokeCustomScript1", "close").await, "Accepted", "{of_csms:?}");
        site.rig.port_is_free(1).await;
        let heard = controller.transcript().await.received;
        assert_eq!(actions(&heard), ["GetConfiguration"], "{of_controller:?}");
        let answers = heard.iter().filter(|line| line.kind != Some(2)).count();
        assert_eq!(answers, 1, "only its boot was answered: {heard:?}");
    }
}

#[tokio::test]
async fn a_trigger_is_judged_by_the_link_to_the_csms() {
    for (tls, answer) in [(false, "Rejected"), (true, "Accepted")] {
        let options = Options { tls, ..Options::default() };
        let mut site = Site::with(options, |setup| setup.policy("minimum_security_profile = 2")).await;
        let _controller = site.booted(Library::Ocpp).await;
        let destination = site.rig.sshd.destination();
        assert_eq!(site.rig.csms.change("InvokeCustomScript1", &destination).await, answer, "TLS: {tls}");
        let profile = site.rig.agent.status().await["ocpp"]["profile"].take();
        assert_eq!(profile, if tls { 2 } else { 1 });
    }
}

// === security ===

/// A bridge with credentials of its own for the CSMS, and a password for the controller.
fn upgraded(setup: Setup) -> Setup {
    let file = setup.directory().join("downstream-key");
    std::fs::write(&file, "the controller's own").expect("it can be written");
    setup.bridge(&format!("authorization_key_file = '{}'", file.display()))
}

async fn upgraded_site(options: Options) -> Site {
    let profile = if options.client_certificates { 3 } else { 2 };
    Site::with(options, |setup| {
        let key = setup.directory().join("authorization-key");
        let setup = upgraded(setup).policy(&format!("minimum_security_profile = {profile}"));
        // Of the CSMS's password, where it wants one: `between` has left it to the controller.
        if key.exists() {
            setup.ocpp(&format!("authorization_key_file = '{}'", key.display()))
        } else {
            setup
        }
    })
    .await
}

#[tokio::test]
async fn an_old_controller_without_tls_gets_security_profile_2_or_3_by_a_password_of_its_own() {
    for [of_csms, of_controller] in PAIRS {
        for (client_certificates, profile) in [(false, 2), (true, 3)] {
            let options = Options { tls: true, client_certificates, ..with(of_csms) };
            let options = if client_certificates { Options { password: None, ..options } } else { options };
            let mut site = upgraded_site(options).await;
            for wrong in [None, Some(b"correct horse battery".to_vec())] {
                let options = charge_point::Options { password: wrong, ..site.controller(of_controller) };
                let mut controller = ChargePoint::start(options).await;
                controller.wait_for("refused", 1).await;
                assert_eq!(controller.endings().await[0]["status"], 401, "{of_controller:?}");
                controller.kill().await;
            }
            assert_eq!(site.rig.csms.counts().await.connections, 0, "nobody was played: {of_csms:?}");

            let password = Some(b"the controller's own".to_vec());
            let options = charge_point::Options { password, ..site.controller(of_controller) };
            let mut controller = ChargePoint::booted(options).await;
            let answer = controller.call("Heartbeat", json!({})).await;
            assert!(answer["answer"].is_object(), "{of_controller:?}: {answer}");
            site.rig.open(1).await;
            site.rig.echo_returns().await;
            assert_eq!(site.rig.agent.link_is("accepted").await["profile"], profile, "{of_csms:?}");
        }
    }
}

#[tokio::test]
async fn a_controller_may_speak_tls_to_the_bridge() {
    for [of_csms, of_controller] in PAIRS {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new(dir.path());
        let site = Site::with(with(of_csms), |setup| {
            setup
                .bridge(&format!("certificate_file = '{}'", authority.certificate().display()))
                .bridge(&format!("key_file = '{}'", authority.key().display()))
        })
        .await;
        let mut plain = ChargePoint::start(site.controller(of_controller)).await;
        let options = charge_point::Options {
            endpoint: site.endpoint().replace("ws:", "wss:"),
            authority: Some(authority.root().to_owned()),
            ..site.controller(of_controller)
        };
        let mut controller = ChargePoint::booted(options).await;
        assert_eq!(controller.count("connections").await, 1, "{of_controller:?}");
        assert_eq!(plain.count("connections").await, 0, "{of_controller:?}");
    }
}

// === rescue ===

#[tokio::test]
async fn the_bridge_holds_the_line_while_the_controller_is_down_and_gives_way_within_a_second() {
    for [of_csms, of_controller] in PAIRS {
        let mut site = Site::with(with(of_csms), |setup| setup.bridge("rescue_after = '1s'")).await;
        let mut controller = site.booted(of_controller).await;
        controller.close(1000, "").await;
        site.legs_are("CP001", "rescue").await;
        site.rig.csms.wait_for("connections", 2).await;
        assert_eq!(site.rig.csms.counts().await.boots, 1, "it doesn't boot as if it were the controller");
        site.rig.open(1).await;
        site.rig.echo_returns().await;
        let theirs = site.rig.csms.call("GetLocalListVersion", json!({})).await;
        assert!(theirs["error"]["code"].is_string(), "{of_csms:?}: {theirs}");

        let back = Instant::now();
        controller.connect().await;
        controller.wait_for("connections", 2).await;
        let waited = back.elapsed();
        assert!(waited < Duration::from_secs(1), "{of_controller:?} waited {waited:?}");
        controller.wait_for("boots", 2).await;
        site.legs_are("CP001", "connected").await;
        assert_eq!(site.rig.csms.counts().await.connections, 3, "{of_csms:?}");
        assert!(site.rig.echoes().await, "the tunnel stays");
        let theirs = site.rig.csms.call("GetLocalListVersion", json!({})).await;
        assert_eq!(theirs["answer"]["list_version"], 7, "{of_csms:?}: {theirs}");
    }
}

#[tokio::test]
async fn without_rescue_nobody_stands_in_for_the_controller() {
    let mut site = Site::start(Options::default()).await;
    let mut controller = site.booted(Library::Ocpp).await;
    controller.close(1000, "").await;
    site.legs_are("CP001", "waiting").await;
    tokio::time::sleep(SHORT * 2).await;
    assert_eq!(site.rig.csms.counts().await.connections, 1);
}

// === the agent's own end ===

#[tokio::test]
async fn a_stopped_agent_closes_both_legs_and_the_controller_comes_back_through_the_next() {
    for [of_csms, of_controller] in PAIRS {
        let mut site = Site::start(with(of_csms)).await;
        let mut controller = site.booted(of_controller).await;
        assert!(site.rig.agent.terminate().await.success());
        assert_eq!(ending(&mut site.rig.csms, 1).await["code"], 1001, "{of_csms:?}");
        controller.wait_for("lost", 1).await;
        assert_eq!(controller.endings().await[0]["code"], 1001, "{of_controller:?}");

        site.rig.agent.start().await;
        controller.wait_for("boots", 2).await;
        site.rig.agent.kill().await;
        controller.wait_for("lost", 2).await;
        ending(&mut site.rig.csms, 2).await;
        site.rig.agent.start().await;
        controller.wait_for("boots", 3).await;
        site.rig.open(1).await;
        site.rig.echo_returns().await;
    }
}

// === what is told ===

#[tokio::test]
async fn status_tells_of_each_leg_what_the_peers_counted() {
    for [of_csms, of_controller] in PAIRS {
        let mut site = Site::start(with(of_csms)).await;
        let mut controller = site.booted(of_controller).await;
        for _ in 0..5 {
            controller.call("Heartbeat", json!({})).await;
        }
        assert_eq!(site.rig.csms.value("Ünïcode").await, "täst ⚡", "{of_csms:?}");
        assert_eq!(site.rig.csms.value("SSHClientKey").await.split(' ').next(), Some("ssh-ed25519"));

        let sum = |lines: &[Line]| json!([lines.len(), lines.iter().map(|line| line.bytes).sum::<u64>()]);
        let figures = |leg: &Value| {
            let pair = |way: &str| json!([leg[format!("frames_{way}")], leg[format!("bytes_{way}")]]);
            [pair("in"), pair("out")]
        };
        // The agent's reports may still be on their way.
        let legs = wait_until("the figures are the peers'", LONG, async || {
            let legs = site.legs("CP001").await;
            let (theirs, csms) = (controller.transcript().await, site.rig.csms.transcript().await);
            let same = figures(&legs["controller"]) == [sum(&theirs.sent), sum(&theirs.received)]
                && figures(&legs["csms"]) == [sum(&csms.sent), sum(&csms.received)];
            same.then_some(legs)
        })
        .await;
        for leg in [&legs["controller"], &legs["csms"]] {
            assert!(leg["since"].is_string() && leg["last_frame"].is_string(), "{legs}");
            assert!(leg["round_trip_ms"].is_number(), "{legs}");
        }
        let words = site.rig.agent.cli(&["status"]).await.stdout;
        assert!(words.contains("CP001"), "{words}");

        controller.close(1000, "").await;
        let legs = site.legs_are("CP001", "waiting").await;
        assert!(legs["controller"].is_null() && legs["csms"].is_null(), "{legs}");
        assert!(legs["last_closed"]["at"].is_string(), "{legs}");
    }
}
