//! Security profiles: what protects the OCPP link, and how the CSMS changes it.

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::tls::{Authority, Fault};
use ocpp_tunnel_tests::{LONG, wait_until};
use serde_json::Value;

const NEW_KEY: &str = "a new password 17";

fn mutual() -> Options {
    Options { tls: true, password: None, client_certificates: true, ..Options::default() }
}

/// Waits until the link's entry in `status` is as wanted.
async fn ocpp_is(agent: &Agent, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_until(what, LONG, async || {
        let ocpp = agent.status().await["ocpp"].take();
        wanted(&ocpp).then_some(ocpp)
    })
    .await
}

/// Waits until the link says what is wrong with it.
async fn error_says(agent: &Agent, words: &str) {
    ocpp_is(agent, &format!("the link's error says {words:?}"), |ocpp| {
        ocpp["last_error"].as_str().is_some_and(|error| error.contains(words))
    })
    .await;
}

async fn stays_out_saying(options: Options, words: &str) {
    let csms = Csms::start(options).await;
    let agent = Agent::run(Setup::new().csms(&csms)).await;
    error_says(&agent, words).await;
    assert_eq!(agent.status().await["ocpp"]["profile"], Value::Null);
}

fn faulty(fault: Fault) -> Options {
    Options { tls: true, fault, ..Options::default() }
}

// === profiles ===

// Python's asyncio ends a failed handshake without the alert that TLS has for it; what is said then is less certain.

#[tokio::test]
async fn profile_1_sends_the_password_over_a_plain_link() {
    let mut csms = Csms::start(Options::default()).await;
    let agent = Agent::run(Setup::new().csms(&csms)).await;
    csms.wait_for("boots", 1).await;
    assert_eq!(agent.link_is("accepted").await["profile"], 1);
    assert_eq!(csms.value("SecurityProfile").await, "1");
}

#[tokio::test]
async fn profile_3_proves_both_sides_by_certificates_and_opens_tunnels() {
    let csms = Csms::start(mutual()).await;
    let mut rig = Rig::unstarted(csms, |setup| setup.policy("minimum_security_profile = 3")).await;
    rig.agent.start().await;
    rig.authorize(&rig.sshd).await;
    rig.csms.wait_for("boots", 1).await;
    assert_eq!(rig.agent.link_is("accepted").await["profile"], 3);
    assert_eq!(rig.csms.value("SecurityProfile").await, "3");
    rig.open(1).await;
    rig.echo_returns().await;
}

#[tokio::test]
async fn a_link_whose_csms_asks_for_no_certificate_is_not_profile_3() {
    let csms = Csms::start(Options { tls: true, password: None, ..Options::default() }).await;
    let files = |setup: &Setup| csms.authority().unwrap().client(setup.directory(), "CP001");
    let setup = Setup::new().csms(&csms);
    let files = files(&setup);
    let setup = setup.client_certificate(&files).ocpp("security_profile = 3");
    let agent = Agent::run(setup).await;
    assert_eq!(agent.link_is("accepted").await["profile"], 0, "TLS alone is no profile");
}

#[tokio::test]
async fn a_client_certificate_of_another_authority_is_refused_in_plain_words() {
    let csms = Csms::start(mutual()).await;
    let setup = Setup::new().csms(&csms);
    let other = tempfile::tempdir().unwrap();
    let files = Authority::new(other.path()).client(setup.directory(), "CP001");
    let agent = Agent::run(setup.client_certificate(&files)).await;
    error_says(&agent, "after it had been shown our client certificate: perhaps it refused that").await;
}

#[tokio::test]
async fn an_expired_client_certificate_is_told_of_by_config_check_and_refused_by_the_csms() {
    let csms = Csms::start(mutual()).await;
    let setup = Setup::new().csms(&csms);
    let files = csms.authority().unwrap().expired_client(setup.directory(), "CP001");
    let agent = Agent::run(setup.client_certificate(&files)).await;
    error_says(&agent, "after it had been shown our client certificate: perhaps it refused that").await;
    let check = agent.cli(&["config", "check"]).await;
    assert_eq!(check.code, Some(0), "{check:?}");
    let remark =
        "the client certificate has expired, on 2020-01-02T00:00:00Z: the CSMS will refuse it; renew it";
    assert!(check.stdout.contains(remark), "{check:?}");
}

#[tokio::test]
async fn a_csms_that_wants_a_client_certificate_says_so_to_who_has_none() {
    let csms = Csms::start(mutual()).await;
    let setup = Setup::new().csms(&csms).ocpp("security_profile = 2");
    let key = setup.directory().join("key");
    std::fs::write(&key, "0123456789abcdef").unwrap();
    let agent = Agent::run(setup.ocpp(&format!("authorization_key_file = '{}'", key.display()))).await;
    error_says(&agent, "after it had asked for a client certificate and got none").await;
}

#[tokio::test]
async fn files_that_make_no_client_certificate_are_found_by_config_check() {
    use std::os::unix::fs::PermissionsExt;

    let csms = Csms::start(mutual()).await;
    let setup = Setup::new().csms(&csms);
    let (certificate, key) = (setup.directory().join("client.pem"), setup.directory().join("client.key"));
    let agent = Agent::new(setup);
    let check = async || agent.cli(&["config", "check"]).await;
    assert_eq!(check().await.code, Some(0));

    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
    let exposed = check().await;
    assert_eq!(exposed.code, Some(78));
    assert!(exposed.stderr.contains("may be read by others (mode 0640); `chmod 600 "), "{exposed:?}");
    assert_eq!(agent.cli(&["run"]).await.code, Some(78), "the agent refuses it, too");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();

    let others = tempfile::tempdir().unwrap();
    let others = Authority::new(others.path()).client(others.path(), "CP001");
    let own = std::fs::read(&key).unwrap();
    std::fs::copy(&others.key, &key).unwrap();
    let mismatch = check().await;
    assert_eq!(mismatch.code, Some(78));
    assert!(mismatch.stderr.contains("isn't the one that the client certificate is for"), "{mismatch:?}");
    std::fs::write(&key, own).unwrap();

    std::fs::write(&certificate, "no certificate").unwrap();
    let empty = check().await;
    assert!(empty.stderr.contains("holds no certificate"), "{empty:?}");
    std::fs::remove_file(&certificate).unwrap();
    let missing = check().await;
    assert!(missing.stderr.contains("can't be read"), "{missing:?}");
}

// === the CSMS's certificate ===

#[tokio::test]
async fn an_expired_certificate_keeps_the_agent_out() {
    stays_out_saying(faulty(Fault::Expired), "has expired: it ended 2020-01-02T00:00:00Z").await;
}

#[tokio::test]
async fn a_certificate_that_isnt_valid_yet_keeps_the_agent_out() {
    stays_out_saying(faulty(Fault::NotYetValid), "isn't valid yet: it starts 3000-01-02T00:00:00Z").await;
}

#[tokio::test]
async fn a_certificate_for_another_name_keeps_the_agent_out() {
    stays_out_saying(faulty(Fault::OtherName), "isn't for 127.0.0.1, but for").await;
}

#[tokio::test]
async fn a_certificate_with_only_a_cn_keeps_the_agent_out() {
    stays_out_saying(faulty(Fault::CnOnly), "it has only a CN, no subjectAltName").await;
}

#[tokio::test]
async fn an_unknown_authority_keeps_the_agent_out() {
    let csms = Csms::start(Options { tls: true, ..Options::default() }).await;
    let other = tempfile::tempdir().unwrap();
    let other = Authority::new(other.path());
    let setup = Setup::new().csms(&csms).ocpp(&format!("ca_file = '{}'", other.root().display()));
    let agent = Agent::run(setup).await;
    error_says(&agent, "has an unknown issuer").await;
}

// === AuthorizationKey ===

#[tokio::test]
async fn a_new_authorization_key_is_used_from_then_on_also_after_a_restart() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    rig.csms.set_password(NEW_KEY.as_bytes()).await;
    assert_eq!(rig.csms.change("AuthorizationKey", NEW_KEY).await, "Accepted");
    rig.csms.wait_for("connections", 2).await;
    ocpp_is(&rig.agent, "the change is settled", |ocpp| {
        ocpp["state"] == "accepted" && ocpp["security_change"].is_null()
    })
    .await;
    assert_eq!(rig.csms.counts().await.refused, 0);
    assert!(rig.echoes().await, "tunnels don't notice");

    rig.agent.terminate().await;
    rig.agent.start().await;
    rig.csms.wait_for("connections", 3).await;
    assert_eq!(rig.csms.counts().await.refused, 0, "the file's key is tried no more");
}

#[tokio::test]
async fn a_key_in_hexadecimal_means_its_bytes() {
    let mut rig = Rig::start().await;
    let bytes: Vec<u8> = (0..20).map(|n| n * 13).collect();
    rig.csms.set_password(&bytes).await;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(rig.csms.change("AuthorizationKey", &hex).await, "Accepted");
    rig.csms.wait_for("connections", 2).await;
    assert_eq!(rig.csms.counts().await.refused, 0);
}

#[tokio::test]
async fn a_new_authorization_key_that_is_refused_gives_way_to_the_old_one() {
    let mut rig = Rig::start().await;
    assert_eq!(rig.csms.change("AuthorizationKey", NEW_KEY).await, "Accepted");
    rig.csms.wait_for("connections", 2).await;
    let ocpp = ocpp_is(&rig.agent, "status tells of it", |ocpp| {
        ocpp["security_change"].as_str().is_some_and(|change| change.contains("given up"))
    })
    .await;
    assert!(ocpp["security_change"].as_str().unwrap().contains("HTTP 401"), "{ocpp}");
    rig.agent.syslog().line_with("security-change-reverted").await;
    assert_eq!(rig.csms.counts().await.refused, 1);
    let words = rig.agent.cli(&["status"]).await.stdout;
    assert!(words.contains("security change: given up, the old settings are in use again"), "{words}");

    // It may be tried again, and the CSMS may have learned it by then.
    rig.csms.set_password(NEW_KEY.as_bytes()).await;
    assert_eq!(rig.csms.change("AuthorizationKey", NEW_KEY).await, "Accepted");
    rig.csms.wait_for("connections", 3).await;
    assert_eq!(rig.csms.counts().await.refused, 1);
}

#[tokio::test]
async fn power_lost_after_the_answer_leaves_an_agent_that_gets_in_with_either_key() {
    for csms_knows_it in [true, false] {
        let mut rig = Rig::start().await;
        if csms_knows_it {
            rig.csms.set_password(NEW_KEY.as_bytes()).await;
        }
        assert_eq!(rig.csms.change("AuthorizationKey", NEW_KEY).await, "Accepted");
        rig.agent.kill().await;
        let before = rig.csms.counts().await.connections;
        rig.agent.start().await;
        rig.csms.wait_for("connections", before + 1).await;
        rig.agent.link_is("accepted").await;
    }
}

#[tokio::test]
async fn a_csms_that_forgets_the_key_it_set_is_reached_with_the_files() {
    let mut rig = Rig::start().await;
    let first = rig.csms.options().password.clone().unwrap();
    rig.csms.set_password(NEW_KEY.as_bytes()).await;
    assert_eq!(rig.csms.change("AuthorizationKey", NEW_KEY).await, "Accepted");
    rig.csms.wait_for("connections", 2).await;
    ocpp_is(&rig.agent, "the change is settled", |ocpp| ocpp["security_change"].is_null()).await;

    rig.csms.set_password(&first).await;
    rig.csms.drop_connection().await;
    rig.csms.wait_for("connections", 3).await;
    ocpp_is(&rig.agent, "status tells which key is used", |ocpp| {
        let change = ocpp["security_change"].as_str();
        change.is_some_and(|change| change.contains("that of ocpp.authorization_key_file is used"))
    })
    .await;
}

#[tokio::test]
async fn the_authorization_key_can_be_written_and_never_read() {
    let mut rig = Rig::start().await;
    for value in
        ["", "short", "0123456789abcde", &"x".repeat(41), "0123456789abcdef\u{7}", "0123456789abcdeé"]
    {
        assert_eq!(rig.csms.change("AuthorizationKey", value).await, "Rejected", "{value:?}");
    }
    rig.csms.set_password(NEW_KEY.as_bytes()).await;
    assert_eq!(rig.csms.change("authorizationkey", NEW_KEY).await, "Accepted");
    rig.csms.wait_for("connections", 2).await;
    ocpp_is(&rig.agent, "the link is back", |ocpp| ocpp["state"] == "accepted").await;
    let entry = rig.csms.key("AuthorizationKey").await.unwrap();
    assert_eq!((&entry["readonly"], &entry["value"]), (&Value::Bool(false), &Value::Null), "{entry}");

    // Nobody else finds it on the device.
    use std::os::unix::fs::PermissionsExt;
    let kept = rig.agent.state_dir().join("ocpp-security.json");
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let shown =
        rig.agent.cli(&["config", "show"]).await.stdout + &rig.agent.cli(&["status", "--json"]).await.stdout;
    let hex: String = NEW_KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    for text in [shown, rig.agent.log(), rig.agent.syslog().lines().join("\n")] {
        assert!(!text.contains(NEW_KEY) && !text.contains(&hex), "{text}");
    }
}

// === SecurityProfile ===

/// The CSMS without TLS, and the one with, of the same charge point; and an agent that knows both URLs.
#[expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
async fn two_csms() -> (Csms, Csms, Agent) {
    let plain = Csms::start(Options::default()).await;
    let secure = Csms::start(Options { tls: true, ..Options::default() }).await;
    let root = secure.authority().unwrap().root().display().to_string();
    let setup = Setup::new()
        .csms(&plain)
        .ocpp(&format!("url = ['{}', '{}']", plain.url(), secure.url()))
        .ocpp(&format!("ca_file = '{root}'"));
    let agent = Agent::run(setup).await;
    agent.link_is("accepted").await;
    (plain, secure, agent)
}

#[tokio::test]
async fn a_higher_security_profile_is_reached_and_never_left_again() {
    let (mut plain, mut secure, mut agent) = two_csms().await;
    assert_eq!(plain.value("SecurityProfile").await, "1");
    assert_eq!(plain.change("SecurityProfile", "2").await, "Accepted");
    secure.wait_for("connections", 1).await;
    let settled = |ocpp: &Value| ocpp["state"] == "accepted" && ocpp["security_change"].is_null();
    let ocpp = ocpp_is(&agent, "the change is settled", settled).await;
    assert_eq!((&ocpp["profile"], &ocpp["security_profile"]), (&2.into(), &2.into()), "{ocpp}");
    assert_eq!(secure.value("SecurityProfile").await, "2");

    for value in ["1", "0", "-1", "4", "", "two", "3"] {
        assert_eq!(secure.change("SecurityProfile", value).await, "Rejected", "{value:?}");
    }
    assert_eq!(secure.change("SecurityProfile", "2").await, "Accepted", "it is so already");

    // The configuration says 1.
    agent.terminate().await;
    agent.start().await;
    secure.wait_for("connections", 2).await;
    assert_eq!(agent.link_is("accepted").await["profile"], 2);
    assert_eq!(plain.counts().await.connections, 1);
}

#[tokio::test]
async fn a_higher_security_profile_that_leads_nowhere_is_given_up() {
    let mut csms = Csms::start(Options::default()).await;
    let agent = Agent::run(Setup::new().csms(&csms)).await;
    agent.link_is("accepted").await;
    // The same URL with wss://, where this CSMS speaks no TLS.
    assert_eq!(csms.change("SecurityProfile", "2").await, "Accepted");
    csms.wait_for("connections", 2).await;
    let reverted = |ocpp: &Value| {
        ocpp["security_change"].as_str().is_some_and(|change| change.contains("given up"))
            && ocpp["state"] == "accepted"
    };
    let ocpp = ocpp_is(&agent, "the change is given up", reverted).await;
    assert_eq!((&ocpp["profile"], &ocpp["security_profile"]), (&1.into(), &1.into()), "{ocpp}");
    assert!(ocpp["security_change"].as_str().unwrap().contains("TLS"), "{ocpp}");
    assert_eq!(csms.value("SecurityProfile").await, "1");
}

#[tokio::test]
async fn a_profile_without_what_it_needs_is_rejected_and_the_link_stays() {
    let mut csms = Csms::start(Options { password: None, ..Options::default() }).await;
    let agent = Agent::run(Setup::new().csms(&csms)).await;
    agent.link_is("accepted").await;
    for profile in ["1", "2", "3"] {
        assert_eq!(csms.change("SecurityProfile", profile).await, "Rejected", "{profile}");
    }
    agent.syslog().line_with("security profile 1 needs ocpp.authorization_key_file").await;
    // A key is what it takes.
    assert_eq!(csms.change("AuthorizationKey", NEW_KEY).await, "Accepted");
    assert_eq!(csms.counts().await.connections, 1, "this link has no use for it");
    assert_eq!(csms.change("SecurityProfile", "1").await, "Accepted");
    csms.wait_for("connections", 2).await;
    ocpp_is(&agent, "the link has profile 1", |ocpp| ocpp["profile"] == 1).await;
}

#[tokio::test]
async fn a_csms_that_asks_for_no_certificate_doesnt_make_the_agent_give_up_its_password() {
    let mut csms = Csms::start(Options { tls: true, password: None, ..Options::default() }).await;
    let setup = Setup::new().csms(&csms).ocpp("security_profile = 2");
    let files = csms.authority().unwrap().client(setup.directory(), "CP001");
    let key = setup.directory().join("key");
    std::fs::write(&key, NEW_KEY).unwrap();
    let setup = setup.ocpp(&format!("authorization_key_file = '{}'", key.display()));
    let agent = Agent::run(setup.client_certificate(&files)).await;
    agent.link_is("accepted").await;
    assert_eq!(csms.change("SecurityProfile", "3").await, "Accepted");
    let reverted = |ocpp: &Value| ocpp["profile"] == 2 && ocpp["security_change"].is_string();
    let ocpp = ocpp_is(&agent, "the change is given up", reverted).await;
    assert!(ocpp["security_change"].as_str().unwrap().contains("lower profile"), "{ocpp}");
}

#[tokio::test]
async fn from_a_password_to_certificates_over_ocpp() {
    let mut second = Csms::start(Options { tls: true, ..Options::default() }).await;
    let mut third = Csms::start(mutual()).await;
    let setup = Setup::new().csms(&second);
    let files = third.authority().unwrap().client(setup.directory(), "CP001");
    let roots =
        [&second, &third].map(|csms| std::fs::read_to_string(csms.authority().unwrap().root()).unwrap());
    let both = setup.directory().join("roots.pem");
    std::fs::write(&both, roots.concat()).unwrap();
    let setup = setup
        .client_certificate(&files)
        .ocpp(&format!("ca_file = '{}'", both.display()))
        .ocpp(&format!("url = ['{}', '{}']", second.url(), third.url()));
    let agent = Agent::run(setup).await;
    agent.link_is("accepted").await;
    assert_eq!(second.change("SecurityProfile", "3").await, "Accepted");
    third.wait_for("connections", 1).await;
    ocpp_is(&agent, "the link has profile 3", |ocpp| ocpp["profile"] == 3).await;
    assert_eq!(third.value("SecurityProfile").await, "3");
}
