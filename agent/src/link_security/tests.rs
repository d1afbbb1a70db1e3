use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ocpp_bridge::Attempts;
use tempfile::TempDir;

use super::*;
use crate::config::Config;

const FILE_KEY: &str = "0123456789abcdef";
const NEW_KEY: &str = "fedcba9876543210";

/// A device's directory, and its configuration.
struct Device {
    dir: TempDir,
    ocpp: Arc<Ocpp>,
}

impl Device {
    fn new(lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        fs::write(&key, FILE_KEY).unwrap();
        let path = dir.path().join("c.toml");
        let lines = lines.replace("KEY", &key.display().to_string());
        fs::write(&path, format!("[ocpp]\nidentity = 'CP001'\n{lines}\n")).unwrap();
        let ocpp = Config::load(&path).unwrap().ocpp.unwrap();
        Self { dir, ocpp }
    }

    fn profile_1() -> Self {
        Self::new("url = 'ws://csms/ocpp'\nsecurity_profile = 1\nauthorization_key_file = 'KEY'")
    }

    fn start(&self) -> (LinkSecurity, ConnectionProfile) {
        LinkSecurity::open(self.ocpp.clone(), self.dir.path()).unwrap()
    }

    fn kept(&self) -> PathBuf {
        self.dir.path().join("ocpp-security.json")
    }
}

fn urls(profile: &ConnectionProfile) -> Vec<String> {
    profile.urls.iter().map(ToString::to_string).collect()
}

/// The link was let in by a CSMS, or refused, with this profile.
fn status(profile: u64, proven: bool) -> LinkStatus {
    let refused = u32::from(!proven);
    LinkStatus {
        attempts: Attempts { profile, failed: refused, refused, proven: proven.then_some(2) },
        last_error: Some("the CSMS refused the credentials (HTTP 401)".into()),
        ..LinkStatus::default()
    }
}

#[test]
fn a_change_is_kept_before_it_is_answered_and_connects_after_it() {
    let device = Device::profile_1();
    let (mut security, _) = device.start();
    assert_eq!(security.change(AUTHORIZATION_KEY, NEW_KEY, Instant::now()), Some(Judgement::Changed));
    assert!(fs::read_to_string(device.kept()).unwrap().contains("\"trial\""));
    assert_eq!(security.view().borrow().change.as_deref(), Some("trying a new authorization key"));
    let Some(Command::Connect { profile, number: 1, at_once: true }) = security.take_command() else {
        panic!("no command")
    };
    assert!(profile.credentials.is_some());
    assert!(security.take_command().is_none());

    security.observe(&status(1, true));
    assert_eq!(security.view().borrow().change, None);
    assert!(!fs::read_to_string(device.kept()).unwrap().contains("\"trial\""));
}

#[test]
fn a_csms_that_changes_its_mind_all_the_time_does_not_wear_out_the_flash() {
    // Where no key is in use, none has to be tried.
    let device = Device::new("url = 'ws://csms/ocpp'\nsecurity_profile = 0");
    let (mut security, _) = device.start();
    let start = Instant::now();
    let change = |security: &mut LinkSecurity, number: u32, now| {
        security.change(AUTHORIZATION_KEY, &format!("key-with-number-{number:02}"), now)
    };
    for number in 0..SECURITY_CHANGES_PER_HOUR {
        assert_eq!(change(&mut security, number, start), Some(Judgement::Changed));
    }
    let kept = fs::read_to_string(device.kept()).unwrap();
    assert_eq!(change(&mut security, 99, start), Some(Judgement::Rejected));
    assert_eq!(fs::read_to_string(device.kept()).unwrap(), kept);
    assert_eq!(change(&mut security, 99, start + Duration::from_secs(3600)), Some(Judgement::Changed));
}

#[test]
fn a_change_that_cant_be_kept_is_rejected_and_didnt_happen() {
    let device = Device::profile_1();
    let (mut security, _) = device.start();
    // A directory in the file's place: nothing can be put there, not even by root.
    fs::create_dir(device.kept()).unwrap();
    for (key, value) in [(AUTHORIZATION_KEY, NEW_KEY), (SECURITY_PROFILE, "2")] {
        assert_eq!(security.change(key, value, Instant::now()), Some(Judgement::Rejected), "{key}");
    }
    assert!(security.take_command().is_none());
    assert_eq!((security.profile_value().as_str(), &security.view().borrow().change), ("1", &None));
    fs::remove_dir(device.kept()).unwrap();
    assert_eq!(security.change(AUTHORIZATION_KEY, NEW_KEY, Instant::now()), Some(Judgement::Changed));
}

#[test]
fn other_keys_are_none_of_ours() {
    let device = Device::profile_1();
    assert_eq!(device.start().0.change("InvokeCustomScript1", "x", Instant::now()), None);
}

#[test]
fn why_a_change_was_given_up_stays_to_be_seen() {
    let device = Device::profile_1();
    let (mut security, _) = device.start();
    security.change(AUTHORIZATION_KEY, NEW_KEY, Instant::now());
    security.take_command();
    security.observe(&status(1, false));
    assert!(matches!(security.take_command(), Some(Command::Connect { number: 2, at_once: true, .. })));
    security.observe(&status(2, true));
    let change = security.view().borrow().change.clone().unwrap();
    assert_eq!(
        change,
        "given up, the old settings are in use again: the CSMS refused the credentials (HTTP 401)"
    );
}

#[test]
fn a_higher_profile_survives_a_restart_and_a_lower_configuration() {
    let device = Device::new(
        "url = ['ws://csms:8080/ocpp', 'wss://csms/ocpp']\nsecurity_profile = 1\nauthorization_key_file = 'KEY'",
    );
    let (mut security, first) = device.start();
    assert_eq!(urls(&first), ["ws://csms:8080/ocpp", "wss://csms/ocpp"]);
    assert_eq!(security.change(SECURITY_PROFILE, "1", Instant::now()), Some(Judgement::Unchanged));
    assert_eq!(security.change(SECURITY_PROFILE, "2", Instant::now()), Some(Judgement::Changed));
    security.observe(&status(1, true));
    assert_eq!(security.change(SECURITY_PROFILE, "2", Instant::now()), Some(Judgement::Unchanged));
    let (security, first) = device.start();
    assert_eq!((security.profile_value().as_str(), urls(&first)), ("2", vec!["wss://csms/ocpp".to_owned()]));
    assert!(first.tls.is_some() && first.credentials.is_some());
}

#[test]
fn without_a_wss_url_the_ws_urls_become_one() {
    let device = Device::new(
        "url = ['ws://csms:8080/ocpp', 'ws://csms/ocpp']\nsecurity_profile = 1\nauthorization_key_file = 'KEY'",
    );
    let (mut security, _) = device.start();
    security.change(SECURITY_PROFILE, "2", Instant::now());
    let Some(Command::Connect { profile, .. }) = security.take_command() else { panic!("no command") };
    assert_eq!(urls(&profile), ["wss://csms:8080/ocpp", "wss://csms/ocpp"]);
    assert_eq!(profile.urls[1].port(), 443);
}

#[test]
fn a_trial_whose_files_are_gone_is_given_up_at_the_start() {
    let device = Device::profile_1();
    // What an agent kept that had a client certificate when it lost power.
    let key: String = FILE_KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    fs::write(device.kept(), format!(r#"{{"trial":{{"profile":3,"key":"{key}"}}}}"#)).unwrap();
    let (mut security, first) = device.start();
    assert_eq!((security.profile_value().as_str(), urls(&first)), ("1", vec!["ws://csms/ocpp".to_owned()]));
    assert_eq!(fs::read_to_string(device.kept()).unwrap(), "{}");
    // The link begins with number 0, and is listened to.
    security.change(AUTHORIZATION_KEY, NEW_KEY, Instant::now());
    assert!(matches!(security.take_command(), Some(Command::Connect { number: 1, .. })));
}

#[test]
fn a_kept_profile_whose_files_are_gone_keeps_the_agent_from_starting_lower() {
    let device = Device::profile_1();
    fs::write(device.kept(), r#"{"profile":3}"#).unwrap();
    let error = LinkSecurity::open(device.ocpp.clone(), device.dir.path()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("security profile 3 needs ocpp.client_certificate_file, which isn't set"),
        "{text}"
    );
}
