use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;

fn open() -> (TempDir, DeviceKeys) {
    let directory = tempfile::tempdir().unwrap();
    let keys = DeviceKeys::open(&directory.path().join("key"), "CP001");
    (directory, keys)
}

fn fingerprints(keys: &DeviceKeys) -> Vec<String> {
    keys.offered().iter().map(Identity::fingerprint).collect()
}

fn server(name: &str) -> Destination {
    format!("ops@{name}").parse().unwrap()
}

fn shown(keys: &DeviceKeys) -> String {
    keys.view().borrow().key.as_ref().unwrap().fingerprint()
}

#[test]
fn while_it_changes_the_new_key_is_offered_first_and_is_the_one_to_authorise() {
    let (directory, keys) = open();
    let old = fingerprints(&keys);
    let rotation = keys.rotate().unwrap();
    let new = rotation.new.fingerprint();
    assert_eq!(fingerprints(&keys), [new.clone(), old[0].clone()]);
    assert_eq!(shown(&keys), new);
    assert!(rotation.new.public_line().ends_with(" CP001"));
    let mode = fs::metadata(directory.path().join("key.new")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);

    assert_eq!(keys.rotate().unwrap().new.fingerprint(), new, "a second one changes nothing");
    keys.abort().unwrap();
    assert_eq!((fingerprints(&keys), shown(&keys)), (old.clone(), old[0].clone()));
    assert!(matches!(keys.abort(), Err(RotationError::NotRotating)));
    assert!(matches!(keys.finish(), Err(RotationError::NotRotating)));
}

#[test]
fn the_first_server_that_takes_the_new_key_ends_the_rotation_where_there_is_no_other() {
    let (directory, keys) = open();
    keys.established(&server("gw"), &fingerprints(&keys)[0]);
    let rotation = keys.rotate().unwrap();
    assert_eq!((rotation.done, rotation.waiting), (vec![], vec![server("gw")]));
    let (new, old) = (rotation.new.fingerprint(), rotation.old.fingerprint());
    keys.established(&server("gw"), &new);
    assert_eq!((fingerprints(&keys), shown(&keys)), (vec![new.clone()], new));
    let kept = Identity::load(&directory.path().join("key.old"), "").unwrap();
    assert_eq!(kept.fingerprint(), old);
    assert!(!directory.path().join("key.new").exists());
}

#[test]
fn a_server_that_needs_the_old_key_keeps_it() {
    let (_directory, keys) = open();
    let old = fingerprints(&keys).remove(0);
    keys.established(&server("first"), &old);
    keys.established(&server("second"), &old);
    let new = keys.rotate().unwrap().new.fingerprint();
    keys.established(&server("first"), &new);
    keys.established(&server("second"), &old);
    assert_eq!(fingerprints(&keys), [new.clone(), old.clone()]);
    assert_eq!(keys.rotation().unwrap().waiting, [server("second")]);
    keys.established(&server("second"), &new);
    assert_eq!(fingerprints(&keys), [new]);
}

#[test]
fn what_another_process_does_to_the_files_holds_from_the_next_login_on() {
    let (directory, keys) = open();
    let path = directory.path().join("key");
    let other = DeviceKeys::open(&path, "CP001");
    assert_eq!(fingerprints(&keys), fingerprints(&other));
    other.rotate().unwrap();
    assert_eq!(fingerprints(&keys), fingerprints(&other));
    assert_eq!(fingerprints(&keys).len(), 2);
    other.finish().unwrap();
    assert_eq!((fingerprints(&keys), shown(&keys)), (fingerprints(&other), shown(&other)));

    // What can't be read leaves in use what was read before.
    let before = fingerprints(&keys);
    fs::write(&path, "garbage").unwrap();
    assert_eq!(fingerprints(&keys), before);
    fs::remove_file(&path).unwrap();
    assert_eq!(fingerprints(&keys), before);
}

#[test]
fn a_rotation_that_was_cut_off_anywhere_is_over_or_goes_on() {
    let (directory, keys) = open();
    let path = directory.path().join("key");
    let rotation = keys.rotate().unwrap();
    // The power failed after the old key was kept and before the new one took its place.
    fs::copy(&path, directory.path().join("key.old")).unwrap();
    let again = DeviceKeys::open(&path, "CP001");
    assert_eq!(fingerprints(&again), [rotation.new.fingerprint(), rotation.old.fingerprint()]);
    again.established(&server("gw"), &rotation.new.fingerprint());
    assert_eq!(fingerprints(&again), [rotation.new.fingerprint()]);
}

#[test]
fn the_servers_survive_a_restart_and_an_unreadable_list_ends_nothing() {
    let (directory, keys) = open();
    let old = fingerprints(&keys).remove(0);
    keys.established(&server("first"), &old);
    let keys = DeviceKeys::open(&directory.path().join("key"), "CP001");
    let new = keys.rotate().unwrap().new.fingerprint();
    let servers = directory.path().join("key.servers");
    fs::remove_file(&servers).unwrap();
    fs::create_dir(&servers).unwrap();
    keys.established(&server("second"), &new);
    assert_eq!(fingerprints(&keys), [new, old]);
}

#[test]
fn a_certificate_of_the_old_key_goes_with_it() {
    let (directory, keys) = open();
    let at = |name: &str| directory.path().join(name);
    let certificate_of = |file: &str| {
        let public = at(&format!("{file}.pub"));
        let identity = Identity::load(&at(file), "").unwrap();
        fs::write(&public, identity.public_line()).unwrap();
        let run = |command: &mut std::process::Command| assert!(command.status().unwrap().success());
        if !at("ca").exists() {
            run(std::process::Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(at("ca")));
        }
        run(std::process::Command::new("ssh-keygen")
            .args(["-q", "-I", file, "-s"])
            .arg(at("ca"))
            .arg(public));
    };
    certificate_of("key");
    assert_eq!(key_ids(&keys), ["key"]);
    keys.rotate().unwrap();
    assert_eq!(key_ids(&keys), ["", "key"]);
    keys.finish().unwrap();
    assert_eq!(key_ids(&keys), [""]);
    assert!(keys.offered()[0].certificate().is_ok(), "no certificate of another key is left beside it");
    assert!(at("key.old-cert.pub").exists());

    keys.rotate().unwrap();
    certificate_of("key.new");
    keys.finish().unwrap();
    assert_eq!(key_ids(&keys), ["key.new"]);
}

fn key_ids(keys: &DeviceKeys) -> Vec<String> {
    let key_id = |identity: &Identity| {
        identity.certificate().unwrap().map_or(String::new(), |certificate| certificate.key_id().to_owned())
    };
    keys.offered().iter().map(key_id).collect()
}

/// What is wrong with a file is told as long as it lasts, and what there is goes on being used.
#[test]
fn a_broken_file_is_told_of_until_it_is_mended() {
    let (directory, keys) = open();
    let path = directory.path().join("key");
    let good = fs::read(&path).unwrap();
    assert!(keys.take_made() && !keys.take_made(), "told once");
    let before = fingerprints(&keys);
    write_private(&path, b"garbage", Existing::Replace).unwrap();
    assert_eq!(fingerprints(&keys), before, "the key that was read is still in use");
    let fault = keys.fault().unwrap();
    assert!(fault.text.contains(path.to_str().unwrap()) && fault.cure.contains("move"), "{fault:?}");

    let next = DeviceKeys::open(&path, "CP001");
    assert_eq!((fingerprints(&next), next.fault()), (vec![], Some(fault)));
    assert!(next.view().borrow().key.is_none() && next.rotation().is_none());
    let mut view = next.view();
    view.mark_unchanged();
    next.refresh();
    assert!(!view.has_changed().unwrap(), "nothing is new");
    write_private(&path, &good, Existing::Replace).unwrap();
    assert_eq!(fingerprints(&next), before);
    assert!(view.has_changed().unwrap() && next.fault().is_none() && !next.take_made());
    keys.refresh();
    assert_eq!(keys.fault(), None);
}

#[test]
fn a_file_that_is_moved_away_makes_room_for_a_new_key_only_where_none_is_in_use() {
    let (directory, keys) = open();
    let path = directory.path().join("key");
    let before = fingerprints(&keys);
    write_private(&path, b"", Existing::Replace).unwrap();
    let next = DeviceKeys::open(&path, "CP001");
    assert!(next.fault().is_some());
    fs::remove_file(&path).unwrap();
    keys.refresh();
    assert!(keys.fault().is_some() && !path.exists());
    assert_eq!(fingerprints(&keys), before);
    let made = fingerprints(&next);
    assert_eq!((made.len(), next.fault()), (1, None));
    assert_ne!(made, before);
    assert!(next.take_made());
}

#[test]
fn the_new_key_of_a_rotation_serves_where_the_old_one_is_broken() {
    let (directory, keys) = open();
    let new = keys.rotate().unwrap().new.fingerprint();
    write_private(&directory.path().join("key"), b"", Existing::Replace).unwrap();
    let next = DeviceKeys::open(&directory.path().join("key"), "CP001");
    assert_eq!(fingerprints(&next), [new]);
    assert!(next.fault().is_some());
}
