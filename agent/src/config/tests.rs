//! What the configuration takes, and how it tells of mistakes.

mod files;
pub(super) mod shipped;

use super::*;
use std::fs;

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
    let ways_out = "[ssh]\nalternative_ports = [\"*:443\"]\nproxy = \"http://proxy:3128\"\nproxy_authorization_file = \"/p\"";
    let link = "proxy = \"http://proxy:3128\"\nproxy_authorization_file = \"/p\"\n";
    for source in [MINIMAL.to_owned(), format!("{MINIMAL}{ways_out}"), format!("{MINIMAL}{link}{ways_out}")] {
        let shown = parse(&source).unwrap().to_toml();
        let again = parse(&shown).unwrap_or_else(|error| panic!("{error}\n{shown}"));
        assert_eq!(again.to_toml(), shown);
    }
}

#[test]
fn errors_name_line_column_and_cure() {
    for (source, expected) in [
        ("x = 1", "c.toml:1:1: unknown key `x`; the keys here are state_dir, runtime_dir, ocpp,"),
        (
            "[ocpp]\nidentity = 7",
            "c.toml:2:12: invalid type: integer `7`, expected a string; write it in quotes",
        ),
        ("[ocpp]\nidentity = \"a", "c.toml:2:"),
        ("", "c.toml:1:1: ocpp.identity is missing; set"),
        ("[ocpp]\nidentity = \"a\"", "c.toml:1:1: ocpp.url is missing; set"),
        ("[ocpp]\nmode = \"of\"", "c.toml:2:8: ocpp.mode \"of\" doesn't exist; use"),
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
            "[ocpp]\nurl = \"ws://x\"\nidentity = \"a\"\nsecurity_profile = 0\nconnectors = 65",
            "c.toml:5:14: ocpp.connectors is 65; use 0 to 64",
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
            "ocpp.mode = \"off\"\n[ssh]\nalternative_ports = [\"*:443\", \"443\"]",
            "c.toml:3:31: ssh.alternative_ports \"443\": ':' and a port",
        ),
        (
            "ocpp.mode = \"off\"\n[ssh]\nproxy = \"proxy:3128\"",
            "c.toml:3:9: ssh.proxy: \"proxy:3128\" is not http://host:port; write",
        ),
        (
            "ocpp.mode = \"off\"\n[ssh]\nproxy = \"http://me:secret@proxy:3128\"",
            "c.toml:3:9: ssh.proxy: a user or password can't stand in the URL; write user:password into a file",
        ),
        (
            "[ocpp]\nurl = \"ws://x\"\nidentity = \"a\"\nsecurity_profile = 0\nproxy = \"proxy\"",
            "c.toml:5:9: ocpp.proxy: \"proxy\" is not http://host:port; write",
        ),
        (
            "[ocpp]\nurl = \"ws://x\"\nidentity = \"a\"\nsecurity_profile = 0\nproxy_authorization_file = \"/p\"",
            "c.toml:5:28: ocpp.proxy_authorization_file is set and ocpp.proxy is not; set it",
        ),
        (
            "ocpp.mode = \"off\"\n[ssh]\nproxy_authorization_file = \"/p\"",
            "c.toml:3:28: ssh.proxy_authorization_file is set and ssh.proxy is not; set it",
        ),
        (
            "ocpp.mode = \"off\"\n[[script]]\nkey = \"HeartbeatInterval\"\nremote = \"1\"\nlocal = \"a:1\"",
            "c.toml:3:7: the key \"HeartbeatInterval\" can't be used",
        ),
        (
            "ocpp.mode = \"off\"\n[[script]]\nkey = \"K\"\nremote = \"x\"\nlocal = \"a:1\"",
            "c.toml:4:10: script.remote: \"x\"",
        ),
        (
            "ocpp.mode = \"off\"\n[[script]]\nkey = \"K\"\nremote = \"unix:/x/{identity}\"\nlocal = \"a:1\"",
            "c.toml:4:10: script.remote \"unix:/x/{identity}\" needs an identity; set ocpp.identity",
        ),
        (
            "ocpp = {mode = \"off\", identity = \"a\"}\n[[script]]\nkey = \"K\"\nremote = \"unix:/x/{host}\"\nlocal = \"a:1\"",
            "c.toml:4:10: script.remote: \"unix:/x/{host}\" is neither",
        ),
        (
            "ocpp = {mode = \"off\", identity = \"a\"}\n[[script]]\nkey = \"K\"\nremote = \"{identity}:1\"\nlocal = \"a:1\"",
            "c.toml:4:10: script.remote: \"{identity}:1\" is neither",
        ),
        (
            "ocpp.mode = \"off\"\n[[script]]\nkey = \"K\"\nremote = \"1\"",
            "c.toml:2:1: missing field `local`; add it",
        ),
        ("[ocpp]\nidentiy = \"a\"", "c.toml:2:1: unknown key `identiy`; did you mean `identity`?"),
        ("[polcy]", "c.toml:1:2: unknown key `polcy`; did you mean `policy`?"),
        ("\n[[connection]]", "c.toml:2:3: `connection` is not part of this version; remove it"),
        ("[connection.master]", "c.toml:1:2: `connection` is not part of this version; remove it"),
        ("[services]", "c.toml:1:2: `services` is not part of this version; remove it"),
        ("[node]", "c.toml:1:2: `node` is not part of this version; remove it"),
        ("[support]", "c.toml:1:2: `support` is not part of this version; remove it"),
        ("[support.logs]", "c.toml:1:2: `support` is not part of this version; remove it"),
        ("[console]", "c.toml:1:2: `console` is not part of this version; remove it"),
        (
            "[ocpp]\nurl = \"wss://x\"\nidentity = \"a\"\nsecurity_profile = 3",
            "c.toml:1:1: security profile 3 needs a client certificate; set ocpp.client_certificate_file and",
        ),
        (
            "[ocpp]\nurl = \"wss://x\"\nidentity = \"a\"\nsecurity_profile = 3\nclient_key_file = \"/k\"",
            "c.toml:5:19: ocpp.client_key_file is set and ocpp.client_certificate_file is not; set it",
        ),
        (
            "[ocpp]\nurl = \"ws://x\"\nidentity = \"a\"\nsecurity_profile = 0\nclient_certificate_file = \"/k\"",
            "c.toml:5:27: ocpp.client_certificate_file is set and ocpp.client_key_file is not; set it",
        ),
        (
            "[ocpp]\nurl = \"wss://x\"\nidentity = \"a\"\nsecurity_profile = 4",
            "c.toml:4:20: ocpp.security_profile 4 doesn't exist; use 0 to 3",
        ),
        (
            "ocpp.mode = \"off\"\n[[script]]\nkey = \"authorizationkey\"\nremote = \"1\"\nlocal = \"a:1\"",
            "c.toml:3:7: the key \"authorizationkey\" can't be used",
        ),
        (
            "[policy]\nmax_duration = 8",
            "c.toml:2:16: invalid type: integer `8`, expected a string like \"60s\", \"15m\" or \"8h\"",
        ),
        (
            "[policy]\nopens_per_hour = \"10\"",
            "c.toml:2:18: invalid type: string \"10\", expected a whole number; write a whole number from 0 on, without quotes",
        ),
        ("[policy]\nopens_per_hour = 10001", "c.toml:1:1: ocpp.identity is missing"),
        (
            "[ocpp]\nmode = \"off\"\n[policy]\nopens_per_hour = 10001",
            "c.toml:4:18: policy.opens_per_hour is 10001; use 0 to 10000",
        ),
        (
            "[ocpp]\nsecurity_profile = 256",
            "c.toml:2:20: invalid value: integer `256`, expected a whole number; write a whole number from 0 to 255",
        ),
        (
            "[ocpp]\nboot_on_reconnect = 1",
            "c.toml:2:21: invalid type: integer `1`, expected a boolean; write true or false, without quotes",
        ),
        (
            "[policy]\nallow_destinations = \"a@b\"",
            "c.toml:2:22: invalid type: string \"a@b\", expected a sequence; write a list in brackets",
        ),
        (
            "\n[script]\nkey = \"A\"",
            "c.toml:2:1: invalid type: map, expected a sequence; write this section's name in double",
        ),
        (
            "[[policy]]\nopens_per_hour = 1",
            "c.toml:1:1: invalid type: map, expected a sequence; write this section's name in single",
        ),
        ("ssh.keepalive_max = 3\nssh.keepalive_max = 4", "c.toml:2:5: duplicate key; remove one of them"),
        ("ssh = 1", "c.toml:1:7: invalid type: integer `1`, expected a section; write its name in brackets"),
        ("state_dir = 1", "c.toml:1:13: invalid type: integer `1`, expected a string; write it in quotes"),
        (
            "ocpp.mode = \"off\"\nstate_dir = \"var\"",
            "c.toml:2:13: state_dir \"var\" is relative; write the whole path, from /",
        ),
        ("ocpp.mode = \"off\"\nruntime_dir = \"\"", "c.toml:2:15: runtime_dir \"\" is relative; write"),
        (
            "ocpp.mode = \"off\"\npolicy.disable_file = \"~/off\"",
            "c.toml:2:23: policy.disable_file \"~/off\" is relative; write",
        ),
        (
            "ocpp.mode = \"off\"\nssh.known_hosts_file = \"k\"",
            "c.toml:2:24: ssh.known_hosts_file \"k\" is relative",
        ),
        ("ocpp.mode = \"off\"\nlog.syslog = \"no\"", "c.toml:2:14: log.syslog \"no\" is neither a path"),
        (
            "ocpp.mode = \"off\"\n[ssh]\nbackoff_minimum = \"20m\"",
            "c.toml:3:19: ssh.backoff_minimum \"20m\" is above ssh.backoff_maximum \"15m\"; lower",
        ),
        (
            "ocpp.mode = \"off\"\n[ssh]\nbackoff_maximum = \"1s\"",
            "c.toml:3:19: ssh.backoff_minimum \"5s\" is above ssh.backoff_maximum \"1s\"; lower",
        ),
        (
            "ocpp.mode = \"off\"\n[[script]]\nkey = \"A\"\nremote = \"1\"\nlocal = \"a:1\"\n[[script]]\nkey = \"B\"\nremote = \"localhost:1\"\nlocal = \"a:2\"",
            "c.toml:8:10: script.remote \"localhost:1\" is also that of \"A\"",
        ),
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
    let script = |key: &str| format!("[[script]]\nkey = \"{key}\"\nremote = \"0\"\nlocal = \"a:1\"\n");
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

fn checked(source: &[u8]) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    fs::write(&path, source).unwrap();
    let directory = format!("{}/", directory.path().display());
    Written::read(&path)
        .and_then(|written| written.check())
        .map(drop)
        .map_err(|error| error.to_string().replacen(&directory, "", 1))
}

#[test]
fn a_file_that_cannot_be_read_has_the_cure_for_that() {
    let error = checked(b"[log]\n# caf\xe9\n").unwrap_err();
    assert_eq!(error, "c.toml:2:6: this is not UTF-8; save the file in that encoding");
    let long = checked(&vec![b'\n'; 300 * 1024]).unwrap_err();
    assert_eq!(long, "c.toml: is longer than 262144 bytes; shorten it");

    let directory = tempfile::tempdir().unwrap();
    let error = Config::load(directory.path()).unwrap_err();
    assert!(error.to_string().ends_with("is a directory; name the file in it"), "{error}");
    assert!(!error.is_missing());
    assert!(Config::load(&directory.path().join("nowhere")).unwrap_err().is_missing());
}

#[test]
fn directories_that_cannot_be_used_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().display();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink("/nonexistent/x", directory.path().join("link")).unwrap();
    let check = |lines: &str| checked(format!("ocpp.mode = \"off\"\n{lines}").as_bytes());
    let with_run = |state: &str| check(&format!("state_dir = \"{state}\"\nruntime_dir = \"{root}/run\""));

    assert_eq!(with_run(&format!("{root}/state/of/things")), Ok(()));
    assert!(!directory.path().join("state").exists(), "a check makes nothing");
    for (state, what) in [
        (format!("{root}/file"), "it is not a directory; name another one".to_owned()),
        (format!("{root}/file/state"), format!("{root}/file is not a directory; name another one")),
        (format!("{root}/link"), "name another one".to_owned()),
    ] {
        let error = with_run(&state).unwrap_err();
        assert!(
            error.starts_with(&format!("c.toml:2:13: state_dir {state} ")) && error.contains(&what),
            "{error}"
        );
    }
    let run = check(&format!("state_dir = \"{root}/state\"\nruntime_dir = \"{root}/file\"")).unwrap_err();
    assert!(run.starts_with("c.toml:3:15: runtime_dir "), "{run}");

    fs::create_dir(directory.path().join("hosts")).unwrap();
    let lines =
        format!("state_dir = \"{root}\"\nruntime_dir = \"{root}\"\nssh.known_hosts_file = \"{root}/hosts\"");
    let hosts = check(&lines).unwrap_err();
    assert_eq!(
        hosts,
        format!("c.toml:4:24: ssh.known_hosts_file {root}/hosts is a directory; name a file in it")
    );
}

#[test]
fn a_directory_that_its_owner_may_not_write_is_found() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    if nix::unistd::Uid::effective().is_root() {
        // Root may write everywhere, but becomes this user first.
        std::os::unix::fs::chown(&state, Some(65_534), None).unwrap();
    }
    fs::set_permissions(&state, fs::Permissions::from_mode(0o500)).unwrap();
    let source = format!("ocpp.mode = \"off\"\nstate_dir = {state:?}\nruntime_dir = {state:?}");
    let error = checked(source.as_bytes()).unwrap_err();
    assert!(error.starts_with("c.toml:2:13: state_dir ") && error.contains("can't be written: "), "{error}");
}

#[test]
fn a_socket_on_the_server_may_be_named_after_the_charge_point() {
    let remote = |identity: &str, remote: &str| {
        let source = format!(
            "[ocpp]\nmode = \"off\"\nidentity = {identity:?}\n[[script]]\nkey = \"K\"\nremote = {remote:?}\nlocal = \"a:1\""
        );
        parse(&source).map(|config| config.slots.first().unwrap().forward.remote.to_string())
    };
    let path = "unix:/run/chargers/{identity}-ssh.sock";
    assert_eq!(remote("CP001", path).unwrap(), "unix:/run/chargers/CP001-ssh.sock");
    assert_eq!(remote("../x y", path).unwrap(), "unix:/run/chargers/..%2Fx%20y-ssh.sock");
    assert_eq!(remote("..", "unix:/run/{identity}").unwrap(), "unix:/run/%2E%2E");
    assert!(remote(".", "unix:/run/.{identity}/x").is_ok());
    assert!(remote(&"x".repeat(255), path).unwrap_err().to_string().contains("at most 107 bytes"));
}

#[test]
fn uploads_go_to_the_csms_by_default() {
    let allowed = |source: &str| {
        let config = parse(source).unwrap();
        let written: Vec<String> = config.policy.allow_uploads.iter().map(ToString::to_string).collect();
        assert!(config.to_toml().contains("allow_uploads = ["), "{}", config.to_toml());
        written
    };
    assert_eq!(allowed(MINIMAL), ["https://csms.example.com"]);
    let urls = MINIMAL.replace(
        "\"wss://csms.example.com/ocpp\"",
        "[\"wss://CSMS.example.com:9000\", \"wss://[2001:db8::1]/x\", \"wss://my_host/\"]",
    );
    assert_eq!(
        allowed(&urls),
        ["https://csms.example.com", "https://csms.example.com:9000", "https://[2001:db8::1]"]
    );
    assert!(allowed(&format!("{MINIMAL}[policy]\nallow_uploads = []")).is_empty());
    assert!(allowed("ocpp.mode = \"off\"").is_empty());
    let own = format!("{MINIMAL}[policy]\nallow_uploads = [\"http://logs:8080\"]");
    assert_eq!(allowed(&own), ["http://logs:8080"]);
    let remarks = parse(&own).unwrap().remarks();
    assert!(remarks.iter().any(|remark| remark.contains("in the clear")), "{remarks:?}");
    let text = error(&format!("{MINIMAL}[policy]\nallow_uploads = [\"https://h\", \"https://h/logs\"]"));
    assert!(
        text.starts_with("c.toml:6:31: policy.allow_uploads \"https://h/logs\": it holds a path"),
        "{text}"
    );
}

/// A bridge with these lines in `[bridge]` and in `[ocpp]`.
fn bridge(bridge: &str, ocpp: &str) -> Result<Config, ConfigError> {
    let head = "[ocpp]\nmode = 'bridge'\nurl = 'wss://csms'\nidentity = 'CP1'\n";
    Config::parse(Path::new("c.toml"), &format!("{head}{ocpp}\n[bridge]\n{bridge}\n"))
}

#[test]
fn a_bridge_passes_the_controllers_credentials_unless_it_has_its_own() {
    let config = bridge("", "").unwrap();
    let relay = config.ocpp.as_ref().unwrap().bridge.as_ref().unwrap();
    assert_eq!(relay.listen, "127.0.0.1:8887".parse().unwrap());
    assert!(relay.passes_credentials() && relay.rescue_after.is_none() && relay.identities.is_empty());

    let own = "authorization_key_file = '/upstream'";
    let config = bridge("authorization_key_file = '/downstream'\nrescue_after = '5m'", own).unwrap();
    let relay = config.ocpp.as_ref().unwrap().bridge.as_ref().unwrap();
    assert!(!relay.passes_credentials());
    assert_eq!(relay.rescue_after, Some(Duration::from_secs(300)));
    assert!(bridge("", "[ocpp.x]").is_err());
    assert!(Config::parse(Path::new("c.toml"), "ocpp.mode = 'off'\n[bridge]\nlisten = '[::1]:1'").is_ok());
}

#[test]
fn a_bridge_that_anyone_could_use_to_play_the_charge_point_is_an_error() {
    let cure = "set bridge.authorization_key_file";
    for ocpp in [
        "authorization_key_file = '/k'",
        "client_certificate_file = '/c'\nclient_key_file = '/k'",
        "security_profile = 3",
    ] {
        let error = bridge("", ocpp).unwrap_err().to_string();
        assert!(error.contains(cure), "{ocpp}: {error}");
    }
    // With a password downstream, what the link needs is what it needs in direct mode.
    let error = bridge("authorization_key_file = '/k'", "").unwrap_err().to_string();
    assert!(
        error.contains("security profile 2 needs a password; set ocpp.authorization_key_file"),
        "{error}"
    );
}

#[test]
fn a_bridges_mistakes_are_told_where_they_stand() {
    let many: Vec<String> = (0..32).map(|number| format!("'C{number}'")).collect();
    for (line, expected) in [
        ("listen = '8887'", "c.toml:7:10: bridge.listen \"8887\" is no address with a port; write"),
        ("listen = '127.0.0.1:0'", "c.toml:7:10: bridge.listen \"127.0.0.1:0\" is no address with a port"),
        ("identities = ['A', 'CP1']", "c.toml:7:20: bridge.identities \"CP1\" is there already"),
        ("identities = ['A', 'A']", "c.toml:7:20: bridge.identities \"A\" is there already"),
        ("identities = ['']", "c.toml:7:15: bridge.identities \"\" is empty"),
        (
            "certificate_file = '/c'",
            "c.toml:7:20: bridge.certificate_file is set and bridge.key_file is not; set",
        ),
        ("key_file = '/c'", "c.toml:7:12: bridge.key_file is set and bridge.certificate_file is not; set"),
        ("rescue_after = 'soon'", "c.toml:7:16: bridge.rescue_after \"soon\""),
        (&format!("identities = [{}]", many.join(",")), "c.toml:7:191: a bridge serves 32 controllers"),
    ] {
        let error = bridge(line, "").unwrap_err().to_string();
        assert!(error.starts_with(expected), "{line}: {error}");
    }
}

#[test]
fn the_agent_is_found_whatever_is_wrong_with_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let socket = |text: &str| {
        fs::write(&path, text).unwrap();
        Config::control_socket_of(&path)
    };
    for broken in ["", "nonsense = 1\n", "x = [\n", "garbage\n", "ocpp = \"unclosed\n"] {
        for text in [format!("{broken}runtime_dir = '/r'\n"), format!("runtime_dir = '/r'\n{broken}")] {
            assert_eq!(socket(&text), Path::new("/r/control.sock"), "{text}");
        }
    }
    let default = Path::new("/run/ocpp-tunnel/control.sock");
    assert_eq!(socket("[log]\nruntime_dir = '/r'\nx = [\n"), default);
    fs::write(&path, "x = [\n").unwrap();
    fs::create_dir(directory.path().join("config.d")).unwrap();
    fs::write(directory.path().join("config.d/5.toml"), "runtime_dir = '/d'\n").unwrap();
    assert_eq!(Config::control_socket_of(&path), Path::new("/d/control.sock"));
    fs::remove_file(&path).unwrap();
    assert_eq!(Config::control_socket_of(&path), default);
}
