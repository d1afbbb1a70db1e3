//! The self-check of a bridge that no controller is connected to.

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::check::check;
use ocpp_tunnel_tests::ports;
use ocpp_tunnel_tests::tls::Authority;
use ocpp_tunnel_tests::wire::WireCsms;

/// What keeps a controller from its CSMS is found before there is a controller, with and without an agent.
#[tokio::test]
async fn the_check_goes_up_to_the_csmss_door() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let csms = WireCsms::start_tls(&authority, false).await;
    let ca_file = format!("ca_file = '{}'", authority.root().display());
    let nobody = format!("ws://127.0.0.1:{}", ports::free());
    let plain = WireCsms::start().await;
    let no_tls = plain.url().replace("ws:", "wss:");
    let cases: [(&str, &str, i64, &str, &str); 5] = [
        (csms.url(), &ca_file, 0, "can be reached: TLS with 127.0.0.1", ""),
        (csms.url(), "", 1, "TLS: ", "ocpp.ca_file"),
        (&no_tls, &ca_file, 1, "TLS: ", "ocpp.ca_file"),
        (&nobody, "", 6, "TCP: no connection to 127.0.0.1", "ocpp.url"),
        ("ws://nowhere.invalid", "", 6, "DNS: ", "the name in ocpp.url"),
    ];
    for (url, more, code, text, cure) in cases {
        let profile = if url.starts_with("wss") { 2 } else { 0 };
        let setup = Setup::new()
            .ocpp(&format!(
                "mode = 'bridge'\nurl = '{url}'\nidentity = 'CP001'\nsecurity_profile = {profile}\n{more}"
            ))
            .policy("minimum_security_profile = 0")
            .bridge(&format!("listen = '127.0.0.1:{}'", ports::free()));
        let mut agent = Agent::run(setup).await;
        assert_eq!(agent.cli(&["keys", "show"]).await.code, Some(0));
        for is_running in [true, false] {
            if !is_running {
                agent.terminate().await;
            }
            let found = check(&agent, &[]).await;
            let line = found.lines("ocpp")[1];
            let part = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            assert!(part("text").contains(text) && part("cure").contains(cure), "{found:#?}");
            assert_eq!(line["exit"].as_i64().unwrap_or_default(), code, "{found:#?}");
            assert_eq!(line["result"] == "ok", code == 0, "{found:#?}");
        }
    }
    assert!(csms.is_idle() && plain.is_idle());
}
