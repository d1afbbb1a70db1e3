//! The main file and those of `config.d`: what comes of them together, and where a mistake is.

use std::os::unix::fs::MetadataExt;

use super::*;

/// A main file and files of `config.d`.
struct Files(tempfile::TempDir);

impl Files {
    fn new(main: &str, others: &[(&str, &str)]) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        fs::write(files.main(), main).unwrap();
        fs::create_dir(files.others()).unwrap();
        for (name, text) in others {
            fs::write(files.others().join(name), text).unwrap();
        }
        files
    }

    fn main(&self) -> PathBuf {
        self.0.path().join("config.toml")
    }

    fn others(&self) -> PathBuf {
        self.0.path().join("config.d")
    }

    /// The error, without the directory.
    fn error(&self) -> String {
        let error = Config::load(&self.main()).expect_err("an error").to_string();
        error.replace(&format!("{}/", self.0.path().display()), "")
    }
}

#[test]
fn files_of_config_d_add_keys_and_replace_single_ones_in_the_order_of_their_names() {
    let script = "[[script]]\nkey = 'K'\nremote = 'localhost:7'\nlocal = '127.0.0.1:7'\n";
    let files = Files::new(
        &format!("state_dir = '/s'\n{MINIMAL}[ssh]\nkeepalive_max = 5\nkeepalive_interval = '10s'\n"),
        &[
            ("20-later.toml", "[ocpp]\nidentity = 'CP020'\n"),
            (
                "10-first.toml",
                &format!("[ocpp]\nidentity = 'CP010'\nmodel = 'first'\n[ssh]\nkeepalive_max = 7\n{script}"),
            ),
            (".hidden.toml", "nonsense"),
            ("readme.txt", "nonsense"),
        ],
    );
    let config = Config::load(&files.main()).unwrap();
    let ocpp = config.ocpp.unwrap();
    assert_eq!((ocpp.identity.as_str(), ocpp.model.as_str()), ("CP020", "first"));
    assert_eq!((config.ssh.keepalive_max, config.ssh.keepalive_interval), (7, Duration::from_secs(10)));
    assert_eq!(config.slots.len(), 1, "the list replaces both defaults");
    let names: Vec<_> = config.files.iter().map(|path| path.strip_prefix(files.0.path()).unwrap()).collect();
    let expected = ["config.toml", "config.d/10-first.toml", "config.d/20-later.toml"];
    assert_eq!(names, expected.map(Path::new));
}

#[test]
fn a_mistake_is_told_of_in_the_file_that_holds_it() {
    let good = "[policy]\nmax_duration = '1h'\n";
    for (other, expected) in [
        ("x = 1", "config.d/50-bad.toml:1:1: unknown key `x`"),
        (
            "[ocpp]\n\nidentity = 7",
            "config.d/50-bad.toml:3:12: invalid type: integer `7`, expected a string; write it in quotes",
        ),
        ("[ocpp]\nidentity = \"a", "config.d/50-bad.toml:2:"),
        ("[ssh]\nbackoff_minimum = '1h'", "config.d/50-bad.toml:2:19: ssh.backoff_minimum \"1h\" is above"),
        (
            "[policy]\n  allow_destinations = ['a@b', 'a b']",
            "config.d/50-bad.toml:2:32: policy.allow_destinations \"a b\"",
        ),
        ("ssh = 3", "config.d/50-bad.toml:1:7: invalid type: integer `3`, expected a section"),
        ("[[script]]\nkey = 'K'", "config.d/50-bad.toml:1:1: missing field `remote`; add it"),
    ] {
        let files =
            Files::new(MINIMAL, &[("10-good.toml", good), ("50-bad.toml", other), ("60-good.toml", good)]);
        assert!(files.error().starts_with(expected), "{}", files.error());
    }
    // What the main file holds is told of there, although others were read after it.
    let files = Files::new("[ocpp]\nmode = 'of'", &[("10-good.toml", good)]);
    assert!(
        files.error().starts_with("config.toml:2:8: ocpp.mode \"of\" doesn't exist"),
        "{}",
        files.error()
    );
}

#[test]
fn config_d_has_bounds() {
    let many: Vec<(String, &str)> = (0..33).map(|number| (format!("{number:02}.toml"), "")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    assert!(Config::load(&Files::new(MINIMAL, &many[..32]).main()).is_ok());
    let files = Files::new(MINIMAL, &many);
    assert_eq!(files.error(), "config.d: has more than 32 files; put some of them together");
    let long = format!("#{}\n", "x".repeat(200 * 1024));
    let files = Files::new(&format!("{long}{MINIMAL}"), &[("1.toml", &long)]);
    let expected =
        "config.d/1.toml: is longer than 262144 bytes, together with the files before it; shorten it";
    assert_eq!(files.error(), expected);
    let files = Files::new(MINIMAL, &[]);
    fs::remove_dir(files.others()).unwrap();
    assert!(Config::load(&files.main()).is_ok(), "it need not exist");
    fs::write(files.others(), "").unwrap();
    assert!(files.error().starts_with("config.d: can't be read:"), "{}", files.error());
}

#[test]
fn a_config_d_of_somebody_else_is_not_read() {
    let files = Files::new(MINIMAL, &[("1.toml", "[ocpp]\nidentity = 'THEIRS'\n")]);
    let owner = fs::metadata(files.main()).unwrap().uid();
    if std::os::unix::fs::chown(files.others(), Some(owner + 1), None).is_err() {
        return; // Only root can give it away.
    }
    let expected = format!("config.d: belongs to user {}, and", owner + 1);
    assert!(files.error().starts_with(&expected), "{}", files.error());
}
