//! Whom the pins and the file make us trust.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ssh_key::PrivateKey;
use ssh_key::certificate::{Builder, CertType};
use ssh_key::private::{Ed25519Keypair, KeypairData};

use super::*;
use crate::limits::{KNOWN_HOSTS_BYTES, LEARNED_KEYS};

fn pair(seed: u8) -> PrivateKey {
    PrivateKey::new(KeypairData::from(Ed25519Keypair::from_seed(&[seed; 32])), "").unwrap()
}

fn key(seed: u8) -> PublicKey {
    pair(seed).public_key().clone()
}

fn plain(seed: u8) -> ShownKey {
    ShownKey::Plain(key(seed))
}

fn line(host: &str, seed: u8) -> String {
    format!("{host} {}", key(seed).to_openssh().unwrap())
}

fn server(text: &str) -> Server {
    text.parse().unwrap()
}

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

const CLOCK: Clock = Clock { now: || UNIX_EPOCH + Duration::from_secs(NOW), is_set: || true };
const UNSET: Clock = Clock { now: || SystemTime::UNIX_EPOCH, is_set: || false };

fn in_directory(pins: &[String], policy: HostKeyPolicy) -> (tempfile::TempDir, HostKeys) {
    let directory = tempfile::tempdir().unwrap();
    let pins = pins.iter().map(|pin| pin.parse().unwrap()).collect();
    let keys = HostKeys::new(pins, directory.path().join("known_hosts"), policy, CLOCK);
    (directory, keys)
}

fn file(keys: &HostKeys) -> String {
    fs::read_to_string(keys.path()).unwrap_or_default()
}

/// A certificate for key 1, by authority 9, for `gateway.example`, of yesterday and valid until tomorrow.
fn certificate(change: impl FnOnce(&mut Builder)) -> ShownKey {
    certificate_by(9, (NOW - DAY, NOW + DAY), |builder| {
        builder.cert_type(CertType::Host).unwrap();
        builder.valid_principal("gateway.example").unwrap();
        change(builder);
    })
}

fn certificate_by(authority: u8, valid: (u64, u64), fill: impl FnOnce(&mut Builder)) -> ShownKey {
    let mut builder = Builder::new(vec![0; 16], key(1), valid.0, valid.1).unwrap();
    fill(&mut builder);
    ShownKey::Certified(Box::new(builder.sign(&pair(authority)).unwrap()))
}

fn certified(keys: &HostKeys, shown: &ShownKey) -> Result<Trusted, String> {
    keys.verify(&server("gateway.example:2222"), shown).map_err(|error| error.to_string())
}

#[test]
fn the_first_key_is_learned_and_another_one_refused() {
    let (_directory, keys) = in_directory(&[], HostKeyPolicy::AcceptNew);
    let gateway = server("gateway.example:2222");
    assert!(keys.verify(&gateway, &plain(1)).unwrap().learned);
    assert!(!keys.verify(&gateway, &plain(1)).unwrap().learned);
    let error = keys.verify(&gateway, &plain(2)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "[gateway.example]:2222 showed the host key {}, known is {} ({}:1)",
            fingerprint(&key(2)),
            fingerprint(&key(1)),
            keys.path().display()
        )
    );
    assert_eq!(error.to_failure().kind, crate::FailureKind::HostKey(crate::HostKeyFault::Changed));
    assert!(
        keys.verify(&server("gateway.example"), &plain(2)).unwrap().learned,
        "another port is another server"
    );
    assert_eq!(
        file(&keys),
        format!("{}\n{}\n", line("[gateway.example]:2222", 1), line("gateway.example", 2))
    );
}

#[test]
fn strict_learns_nothing() {
    let (_directory, keys) = in_directory(&[], HostKeyPolicy::Strict);
    let error = keys.verify(&server("192.0.2.1"), &plain(1)).unwrap_err();
    assert!(matches!(error, HostKeyError::Unknown { .. }), "{error}");
    assert!(!keys.path().exists());
}

#[test]
fn pins_alone_judge_a_pinned_host() {
    let (_directory, keys) = in_directory(
        &[line("other", 7), line("[gateway.example]:2222", 1), line("[gateway.example]:2222", 2)],
        HostKeyPolicy::AcceptNew,
    );
    let gateway = server("gateway.example:2222");
    fs::write(keys.path(), line("[gateway.example]:2222", 3)).unwrap();
    assert!(!keys.verify(&gateway, &plain(2)).unwrap().learned);
    let error = keys.verify(&gateway, &plain(3)).unwrap_err();
    assert!(error.to_string().contains("(ssh.host_keys, line 2), "), "{error}");
    assert_eq!(error.to_failure().kind, crate::FailureKind::HostKey(crate::HostKeyFault::Pinned));
    let expected = keys.expected(&gateway);
    assert_eq!(expected.algorithms, [Algorithm::Ed25519, Algorithm::Ed25519]);
    assert!(!expected.certificates);
    assert_eq!(keys.pinned(&gateway), Some(Place::Pin(2)));
    assert_eq!(keys.pinned(&server("gateway.example")), None);
}

#[test]
fn a_revoked_key_is_refused_wherever_it_is_trusted() {
    let revoked = line("@revoked *", 1);
    for (pins, content) in [
        (vec![line("gw", 1), revoked.clone()], String::new()),
        (vec![line("gw", 1)], revoked.clone()),
        (vec![revoked.clone()], line("gw", 1)),
        (vec![revoked.clone()], String::new()),
        (vec![], format!("{}\n{revoked}\n", line("gw", 1))),
    ] {
        let (_directory, keys) = in_directory(&pins, HostKeyPolicy::AcceptNew);
        fs::write(keys.path(), &content).unwrap();
        let error = keys.verify(&server("gw"), &plain(1)).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("gw showed the revoked host key {}", fingerprint(&key(1)))),
            "{error}"
        );
        assert_eq!(error.to_failure().kind, crate::FailureKind::HostKey(crate::HostKeyFault::Revoked));
        assert_eq!(file(&keys), content, "nothing is learned");
    }
    let (_directory, keys) = in_directory(&[revoked], HostKeyPolicy::AcceptNew);
    assert!(keys.verify(&server("gw"), &plain(2)).unwrap().learned, "another key may be learned");
}

#[test]
fn an_authority_vouches_for_a_host_and_nothing_is_learned() {
    let pin = line("@cert-authority *.example", 9);
    for (pins, content) in [(vec![pin.clone()], String::new()), (vec![], pin.clone())] {
        let (_directory, keys) = in_directory(&pins, HostKeyPolicy::AcceptNew);
        fs::write(keys.path(), &content).unwrap();
        assert!(keys.expected(&server("gateway.example:2222")).certificates);
        assert!(!keys.expected(&server("gateway.test")).certificates);
        let trusted = certified(&keys, &certificate(|_| {})).unwrap();
        assert_eq!((trusted.fingerprint, trusted.learned), (fingerprint(&key(1)), false));
        assert!(trusted.place.is_some());
        // The key alone proves nothing, and isn't learned either.
        let error = keys.verify(&server("gateway.example"), &plain(1)).unwrap_err();
        assert!(error.to_string().contains("known is the authority SHA256:"), "{error}");
        assert_eq!(error.to_failure().kind, crate::FailureKind::HostKey(crate::HostKeyFault::Certificate));
        assert_eq!(file(&keys), content);
    }
}

#[test]
fn what_is_wrong_with_a_certificate_is_told() {
    let (_directory, keys) =
        in_directory(&[line("@cert-authority gateway.example", 9)], HostKeyPolicy::AcceptNew);
    let (host, yesterday) = ("gateway.example", (NOW - DAY, NOW + DAY));
    let wrong = |shown: ShownKey| certified(&keys, &shown).unwrap_err();
    for (shown, expected) in [
        (
            certificate_by(9, yesterday, |builder| {
                builder.cert_type(CertType::User).unwrap();
                builder.valid_principal(host).unwrap();
            }),
            "it is a user's, not a host's".to_owned(),
        ),
        (
            certificate_by(8, yesterday, |builder| {
                builder.cert_type(CertType::Host).unwrap();
                builder.valid_principal(host).unwrap();
            }),
            format!("it is signed by {}, trusted is {}", fingerprint(&key(8)), fingerprint(&key(9))),
        ),
        (
            certificate_by(9, yesterday, |builder| {
                builder.cert_type(CertType::Host).unwrap();
                builder.valid_principal("other.example").unwrap();
            }),
            "it is for other.example, not for gateway.example".into(),
        ),
        (
            certificate_by(9, yesterday, |builder| {
                builder.cert_type(CertType::Host).unwrap();
                builder.all_principals_valid().unwrap();
            }),
            "it names no host, so not gateway.example".into(),
        ),
        (
            certificate(|builder| {
                builder.critical_option("source-address", "192.0.2.1").unwrap();
            }),
            "it has the unknown critical option source-address".into(),
        ),
        (
            certificate_by(9, (NOW - DAY, NOW), |builder| {
                builder.cert_type(CertType::Host).unwrap();
                builder.valid_principal(host).unwrap();
            }),
            "it is valid from 2027-01-14T08:00:00Z to 2027-01-15T08:00:00Z, and this device's clock says 2027-01-15T08:00:00Z"
                .into(),
        ),
    ] {
        let error = wrong(shown);
        assert_eq!(error, format!("[gateway.example]:2222 showed a certificate, but {expected}"));
    }
}

#[test]
fn a_certificate_whose_signature_is_wrong_is_refused() {
    let (_directory, keys) = in_directory(&[line("@cert-authority *", 9)], HostKeyPolicy::AcceptNew);
    let ShownKey::Certified(good) = certificate(|_| {}) else { unreachable!() };
    let bytes = good.to_bytes().unwrap();
    // Another name of the same length, so that all but the signature stays sound.
    let at = bytes.windows(15).position(|window| window == b"gateway.example").unwrap();
    let mut forged = bytes.clone();
    forged[at..at + 15].copy_from_slice(b"another.example");
    let forged = ShownKey::Certified(Box::new(Certificate::from_bytes(&forged).unwrap()));
    let error = keys.verify(&server("another.example"), &forged).unwrap_err();
    assert!(error.to_string().ends_with("its signature is wrong"), "{error}");
}

#[test]
fn principals_may_be_patterns_and_addresses() {
    let (_directory, keys) = in_directory(&[line("@cert-authority *", 9)], HostKeyPolicy::AcceptNew);
    let shown = certificate_by(9, (0, u64::MAX), |builder| {
        builder.cert_type(CertType::Host).unwrap();
        for principal in ["*.Example.com", "192.0.2.7", "2001:db8::1"] {
            builder.valid_principal(principal).unwrap();
        }
    });
    for good in ["gw.example.com", "192.0.2.7:2222", "[2001:db8::1]", "[2001:db8::1]:2222"] {
        assert!(keys.verify(&server(good), &shown).is_ok(), "{good}");
    }
    for bad in ["example.com", "192.0.2.8", "[2001:db8::2]"] {
        assert!(keys.verify(&server(bad), &shown).is_err(), "{bad}");
    }
}

#[test]
fn without_a_clock_only_certificates_without_an_end_are_good() {
    let pin = line("@cert-authority *", 9).parse().unwrap();
    let keys = HostKeys::new(vec![pin], "/nonexistent/known_hosts".into(), HostKeyPolicy::Strict, UNSET);
    let error = keys.verify(&server("gateway.example"), &certificate(|_| {})).unwrap_err();
    assert!(error.to_string().ends_with("and this device's clock isn't set"), "{error}");
    assert_eq!(error.to_failure().kind, crate::FailureKind::HostKey(crate::HostKeyFault::Clock));
    let eternal = certificate_by(9, (0, u64::MAX), |builder| {
        builder.cert_type(CertType::Host).unwrap();
        builder.valid_principal("gateway.example").unwrap();
    });
    assert!(keys.verify(&server("gateway.example"), &eternal).is_ok());
}

#[test]
fn a_revoked_authority_or_key_spoils_a_certificate() {
    for (revoked, what) in
        [(9, "showed a certificate of the revoked authority"), (1, "showed the revoked host key")]
    {
        let pins = [line("@cert-authority *", 9), line("@revoked gateway.example", revoked)];
        let (_directory, keys) = in_directory(&pins, HostKeyPolicy::AcceptNew);
        let error = certified(&keys, &certificate(|_| {})).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_pinned_key_needs_no_certificate() {
    let (_directory, keys) = in_directory(&[line("[gateway.example]:2222", 1)], HostKeyPolicy::Strict);
    assert!(certified(&keys, &certificate(|_| {})).is_ok());
}

#[test]
fn a_file_with_foreign_lines_is_kept_as_it_is() {
    let (_directory, keys) = in_directory(&[], HostKeyPolicy::AcceptNew);
    let foreign = b"# a comment\nnonsense \xff\n|1|aaaa|bbbb ssh-ed25519 x";
    fs::write(keys.path(), foreign).unwrap();
    assert!(keys.verify(&server("192.0.2.1"), &plain(1)).unwrap().learned);
    let file = fs::read(keys.path()).unwrap();
    assert!(file.starts_with(foreign), "{file:?}");
    assert!(String::from_utf8_lossy(&file).ends_with(&format!("x\n{}\n", line("192.0.2.1", 1))), "{file:?}");
    let places: Vec<Place> = keys.not_understood().unwrap().into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, [Place::File(keys.path().into(), 2), Place::File(keys.path().into(), 3)]);
    assert_eq!(keys.all().unwrap().len(), 1);
}

#[test]
fn the_file_is_bounded() {
    let (_directory, keys) = in_directory(&[], HostKeyPolicy::AcceptNew);
    let full: String = (0..LEARNED_KEYS).map(|n| line(&format!("host{n}"), 1) + "\n").collect();
    fs::write(keys.path(), &full).unwrap();
    let error = keys.verify(&server("192.0.2.1"), &plain(1)).unwrap_err();
    assert!(matches!(error, HostKeyError::File(FileError::Full(_))), "{error}");
    let padding = KNOWN_HOSTS_BYTES as usize - 10;
    fs::write(keys.path(), "#".repeat(padding)).unwrap();
    let error = keys.verify(&server("192.0.2.1"), &plain(1)).unwrap_err();
    assert!(matches!(error, HostKeyError::File(FileError::Full(_))), "{error}");
    fs::write(keys.path(), vec![b'#'; KNOWN_HOSTS_BYTES as usize + 1]).unwrap();
    let error = keys.verify(&server("192.0.2.1"), &plain(1)).unwrap_err();
    assert!(matches!(error, HostKeyError::File(FileError::Read(..))), "{error}");
}

#[test]
fn an_unwritable_file_stops_no_tunnel() {
    let keys = HostKeys::new(vec![], "/nonexistent/known_hosts".into(), HostKeyPolicy::AcceptNew, CLOCK);
    assert!(keys.verify(&server("192.0.2.1"), &plain(1)).unwrap().learned);
}

#[test]
fn who_writes_at_the_same_time_is_told() {
    let (directory, keys) = in_directory(&[], HostKeyPolicy::AcceptNew);
    let other = fs::File::open(directory.path()).unwrap();
    other.lock().unwrap();
    assert!(matches!(keys.trust(&server("gw"), &[key(1)]), Err(FileError::Busy(_))));
    other.unlock().unwrap();
    keys.trust(&server("gw"), &[key(1)]).unwrap();
}

#[test]
fn a_host_is_forgotten_and_nobody_else() {
    let (_directory, keys) = in_directory(&[], HostKeyPolicy::AcceptNew);
    let hashed = "|1|sTEvGDwfejyI9SHK7/mR8vce168=|mdLOWTGPHIiZS20w0DGu3zdKz4U=";
    let keep = [
        "# gateway.example".to_owned(),
        line("[gateway.example]:2222", 1),
        line("*.example", 2),
        line("@cert-authority gateway.example", 9),
        line("@revoked gateway.example", 8),
    ];
    let drop = [line("gateway.example", 1), line(hashed, 2), line("gateway.example,192.0.2.1", 3) + " mine"];
    let content = [keep.as_slice(), drop.as_slice()].concat().join("\n");
    fs::write(keys.path(), content).unwrap();
    let done = keys.forget(&server("gateway.example")).unwrap();
    assert_eq!(done, Rewritten { removed: 3, added: 0, by_pattern: vec![3] });
    assert_eq!(file(&keys), keep.join("\n") + "\n" + &line("192.0.2.1", 3) + " mine");
    assert_eq!(keys.forget(&server("nobody.example")).unwrap().removed, 0);
}

#[test]
fn where_nothing_was_ever_learned_there_is_nothing_to_forget() {
    let keys = HostKeys::new(vec![], "/nonexistent/known_hosts".into(), HostKeyPolicy::AcceptNew, CLOCK);
    assert_eq!(keys.forget(&server("gateway.example")).unwrap(), Rewritten::default());
}

#[test]
fn announced_keys_replace_what_was_learned() {
    let (_directory, keys) = in_directory(&[], HostKeyPolicy::AcceptNew);
    let gateway = server("gw:2222");
    fs::write(keys.path(), format!("{}\n{}\n", line("[gw]:2222,[192.0.2.1]:2222", 1), line("other", 1)))
        .unwrap();
    let announced = keys.to_prove(&gateway, &key(1), vec![key(1), key(2), key(2)]).unwrap();
    assert_eq!(announced, [key(1), key(2)]);
    assert_eq!(keys.replace(&gateway, &announced).unwrap().added, 1);
    assert_eq!(keys.to_prove(&gateway, &key(1), announced), None, "there is nothing to do");

    let announced = keys.to_prove(&gateway, &key(2), vec![key(2)]).unwrap();
    let done = keys.replace(&gateway, &announced).unwrap();
    assert_eq!(done, Rewritten { removed: 1, added: 0, by_pattern: vec![] });
    let expected = [line("[192.0.2.1]:2222", 1), line("other", 1), line("[gw]:2222", 2)];
    assert_eq!(file(&keys), expected.join("\n") + "\n");
}

#[test]
fn an_announcement_changes_nothing_where_nothing_may_be_learned() {
    let gateway = server("gw");
    let new = || vec![key(1), key(2)];
    let learned = line("gw", 1);
    for (pins, content, policy) in [
        (vec![learned.clone()], String::new(), HostKeyPolicy::AcceptNew),
        (vec![line("@cert-authority *", 9)], learned.clone(), HostKeyPolicy::AcceptNew),
        (vec![], learned.clone(), HostKeyPolicy::Strict),
        (vec![], line("g?", 1), HostKeyPolicy::AcceptNew),
        (vec![], format!("{learned}\n{}", line("@cert-authority *", 9)), HostKeyPolicy::AcceptNew),
        (vec![], String::new(), HostKeyPolicy::AcceptNew),
        (vec![], line("gw", 3), HostKeyPolicy::AcceptNew),
    ] {
        let (_directory, keys) = in_directory(&pins, policy);
        fs::write(keys.path(), &content).unwrap();
        assert_eq!(keys.to_prove(&gateway, &key(1), new()), None, "{pins:?} {content}");
    }
    let (_directory, keys) = in_directory(&[line("@revoked gw", 2)], HostKeyPolicy::AcceptNew);
    fs::write(keys.path(), &learned).unwrap();
    assert_eq!(keys.to_prove(&gateway, &key(1), new()), None, "a revoked key isn't learned");
    assert_eq!(keys.to_prove(&gateway, &key(1), vec![key(3)]), None, "the key in use isn't announced");
    let many = (1..).take(ANNOUNCED_KEYS + 1).map(key).collect();
    assert_eq!(keys.to_prove(&gateway, &key(1), many), None, "too many");
}
