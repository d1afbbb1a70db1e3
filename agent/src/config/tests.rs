//! What the configuration takes, and how it tells of mistakes.

use super::*;

const MINIMAL: &str =
    "[ocpp]\nurl = \"wss://csms.example.com/ocpp\"\nidentity = \"CP001\"\nauthorization_key_file = \"/k\"\n";

fn parse(source: &str) -> Result<Config, String> {
    Config::parse(Path::new("c.toml"), source).map_err(|error| error.to_string())
}

fn error(source: &str) -> String {
    parse(source).expect_err("an error")
}

#[test]
fn the_least_that_must_be_said() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.identity.as_deref(), Some("CP001"));
    assert_eq!(config.ssh.identity_file, Path::new("/var/lib/ocpp-tunnel/id_ed25519"));
    let slots: Vec<String> =
        config.slots.iter().map(|s| format!("{} {} {}", s.number, s.key, s.forward)).collect();
    assert_eq!(
        slots,
        [
            "1 InvokeCustomScript1 localhost:1111:127.0.0.1:22",
            "2 InvokeCustomScript2 localhost:1112:127.0.0.1:80"
        ]
    );
    assert_eq!(config.policy.max_duration, Duration::from_secs(8 * 3600));
}

#[test]
fn without_ocpp_nothing_must_be_said() {
    let config = parse("state_dir = \"/s\"\nocpp.mode = \"off\"").unwrap();
    assert!(config.ocpp.is_none());
    assert_eq!(config.ssh.known_hosts_file, Path::new("/s/known_hosts"));
}

#[test]
fn what_is_shown_can_be_read_again() {
    let shown = parse(MINIMAL).unwrap().to_toml();
    let again = parse(&shown).unwrap_or_else(|error| panic!("{error}\n{shown}"));
    assert_eq!(again.to_toml(), shown);
}

#[test]
fn errors_name_line_column_and_cure() {
    for (source, expected) in [
        ("x = 1", "c.toml:1:1: unknown field `x`"),
        ("[ocpp]\nidentity = 7", "c.toml:2:12: invalid type: integer `7`, expected a string"),
        ("[ocpp]\nidentity = \"a", "c.toml:2:"),
        ("", "c.toml:1:1: ocpp.identity is missing; set"),
        ("[ocpp]\nidentity = \"a\"", "c.toml:1:1: ocpp.url is missing; set"),
        ("[ocpp]\nmode = \"of\"", "c.toml:2:8: ocpp.mode \"of\" doesn't exist; use"),
        ("[ocpp]\n  mode = \"bridge\"", "c.toml:2:10: ocpp.mode \"bridge\" is not part of this version; use"),
        ("[ocpp]\nurl = \"http://x\"\nidentity = \"a\"", "c.toml:2:7: ocpp.url \"http://x\""),
        (
            "[ocpp]\nurl = [\"wss://x\", \"ws://y\"]\nidentity = \"a\"",
            "c.toml:2:19: security profile 2 needs TLS",
        ),
        (
            "[ocpp]\nurl = \"wss://x\"\nidentity = \"a\"",
            "c.toml:1:1: security profile 2 needs a password; set",
        ),
        (
            "ocpp.mode = \"off\"\n[policy]\nallow_destinations = [\"a@b\", \"a b\"]",
            "c.toml:3:30: policy.allow_destinations \"a b\"",
        ),
        ("ocpp.mode = \"off\"\n[policy]\nmax_duration = \"8\"", "c.toml:3:16: policy.max_duration \"8\""),
        (
            "ocpp.mode = \"off\"\n[policy]\nmax_duration = \"0s\"",
            "c.toml:3:16: policy.max_duration \"0s\": out of range; use 1s to",
        ),
        (
            "ocpp.mode = \"off\"\n[ssh]\nhost_keys = [\"nonsense\"]",
            "c.toml:3:14: ssh.host_keys: \"nonsense\"",
        ),
        (
            "ocpp.mode = \"off\"\n[ssh]\nkeepalive_max = 0",
            "c.toml:3:17: ssh.keepalive_max is 0; use 1 to 100",
        ),
        (
            "ocpp.mode = \"off\"\n[[script]]\nkey = \"HeartbeatInterval\"\nremote = \"1\"\nlocal = \"a:1\"",
            "c.toml:3:7: the key \"HeartbeatInterval\" can't be used",
        ),
        (
            "ocpp.mode = \"off\"\n[[script]]\nkey = \"K\"\nremote = \"x\"\nlocal = \"a:1\"",
            "c.toml:4:10: script.remote: \"x\"",
        ),
        ("ocpp.mode = \"off\"\n[[script]]\nkey = \"K\"\nremote = \"1\"", "c.toml:2:1: missing field `local`"),
        ("ocpp.mode = \"off\"\n[log]\nlevel = \"loud\"", "c.toml:3:9: log.level \"loud\" doesn't exist; use"),
    ] {
        let error = error(source);
        assert!(error.starts_with(expected), "{source:?}\n got {error}\nwant {expected}");
    }
}

#[test]
fn the_month_is_capped_in_bytes_or_in_words() {
    let cap = |value: &str| {
        parse(&format!("ocpp.mode = \"off\"\npolicy.monthly_bytes = {value}")).map(|c| c.policy.monthly_bytes)
    };
    for (value, expected) in [
        ("0", None),
        ("\"0\"", None),
        ("1234", Some(1234)),
        ("\"500MB\"", Some(500_000_000)),
        ("\"2GiB\"", Some(2 << 30)),
    ] {
        assert_eq!(cap(value), Ok(expected), "{value}");
    }
    for value in ["-1", "\"much\"", "\"500Mb\"", "\"1001TB\"", "1.5", "true"] {
        let error = cap(value).unwrap_err();
        assert!(
            error.starts_with("c.toml:2:24: ") && error.contains("500MB") | error.contains("no cap"),
            "{error}"
        );
    }
    assert_eq!(parse(MINIMAL).unwrap().policy.monthly_bytes, None);
}

#[test]
fn scripts_are_called_by_the_number_in_their_key() {
    let script = |key: &str| format!("[[script]]\nkey = \"{key}\"\nremote = \"1\"\nlocal = \"a:1\"\n");
    let config =
        parse(&format!("ocpp.mode = \"off\"\n{}{}", script("InvokeCustomScript3"), script("Dashboard")))
            .unwrap();
    let numbers: Vec<u8> = config.slots.iter().map(|slot| slot.number).collect();
    assert_eq!(numbers, [3, 2]);
    let clash = error(&format!("ocpp.mode = \"off\"\n{}{}", script("Script2"), script("Dashboard")));
    assert!(clash.contains("would both be script 2"), "{clash}");
    let twice = error(&format!("ocpp.mode = \"off\"\n{}{}", script("Script2"), script("script2")));
    assert!(twice.contains("can't be used"), "{twice}");
}

#[test]
fn the_identity_may_stand_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity");
    fs::write(&path, "RDAM 123\n").unwrap();
    let source = format!("[ocpp]\nmode = \"off\"\nidentity_file = {path:?}");
    assert_eq!(parse(&source).unwrap().identity.as_deref(), Some("RDAM 123"));
    assert!(error(&format!("{source}\nidentity = \"x\"")).contains("remove one"));
    assert!(error("[ocpp]\nidentity_file = \"/nonexistent\"").contains("c.toml:2:17: can't read"));
}
