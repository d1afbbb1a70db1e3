use super::*;

fn key(text: &str) -> AuthorizationKey {
    AuthorizationKey::parse(text.as_bytes()).unwrap()
}

fn proof(profile: u8, text: &str) -> Proof {
    Proof { profile, key: Some(key(text)) }
}

/// A CSMS and the link to it: what it lets in, and what came of each connection. Time is the number of tries.
struct World {
    rollover: Rollover,
    attempts: Attempts,
    /// What lets us in. Profiles from 2 on are TLS.
    accepts: Vec<Proof>,
    /// The ports that answer: those without and with TLS.
    reachable: [bool; 2],
    tries: Vec<(u8, Option<AuthorizationKey>)>,
    /// The profile that links fulfil, where it isn't the one that they are made for.
    live: Option<u8>,
}

impl World {
    fn new(configured: Proof, kept: Kept, accepts: &[Proof]) -> Self {
        Self {
            rollover: Rollover::new(configured, kept),
            attempts: Attempts::default(),
            accepts: accepts.to_vec(),
            reachable: [true; 2],
            tries: Vec::new(),
            live: None,
        }
    }

    /// One try to connect, and what is concluded from it. Whether the CSMS let us in.
    fn connect(&mut self) -> (bool, Vec<Outcome>) {
        let proof = self.rollover.proof();
        let sent = proof.key.clone().filter(|_| uses_key(proof.profile));
        self.tries.push((proof.profile, sent.clone()));
        if self.attempts.profile != self.rollover.number() {
            self.attempts = Attempts { profile: self.rollover.number(), ..Attempts::default() };
        }
        let reachable = self.reachable[usize::from(proof.profile >= 2)];
        let accepts = |one: &Proof| one.profile == proof.profile && (sent.is_none() || one.key == sent);
        let accepted = reachable && self.accepts.iter().any(accepts);
        if accepted {
            self.attempts.proven = self.attempts.proven.or(Some(self.live.unwrap_or(proof.profile)));
        }
        self.attempts.failed += u32::from(!accepted);
        self.attempts.refused += u32::from(reachable && !accepted);
        let mut outcomes = Vec::new();
        while let Some(outcome) = self.rollover.observe(&self.attempts) {
            outcomes.push(outcome);
        }
        (accepted, outcomes)
    }

    /// Connects until the CSMS lets us in; fails the test if that takes more than a dozen tries.
    fn until_in(&mut self) -> Vec<Outcome> {
        let mut all = Vec::new();
        for _ in 0..12 {
            let (accepted, outcomes) = self.connect();
            all.extend(outcomes);
            if accepted {
                return all;
            }
        }
        panic!("locked out: {:?}", self.tries)
    }

    /// Loses power, and starts with what was kept.
    fn restart(&mut self) {
        self.rollover = Rollover::new(self.rollover.configured.clone(), self.rollover.kept.clone());
        self.attempts = Attempts::default();
    }
}

const AT_ONCE: Outcome = Outcome::Next { at_once: true };
const LATER: Outcome = Outcome::Next { at_once: false };

fn connected(configured: Proof) -> World {
    let accepts = [configured.clone()];
    let mut world = World::new(configured, Kept::default(), &accepts);
    assert_eq!(world.until_in(), []);
    world
}

#[test]
fn a_new_key_that_is_accepted_replaces_the_old_one_for_good() {
    let mut world = connected(proof(2, "old"));
    assert_eq!(world.rollover.set_key(key("new")), Ok(Change::Trial));
    assert_eq!(world.rollover.kept().trial, Some(proof(2, "new")), "to be kept before it is answered");
    world.accepts = vec![proof(2, "new")];
    assert_eq!(world.until_in(), [Outcome::Settled]);
    assert_eq!(world.rollover.kept(), &Kept { key: Some(key("new")), ..Kept::default() });
    world.restart();
    world.tries.clear();
    assert_eq!(world.until_in(), []);
    assert_eq!(world.tries, [(2, Some(key("new")))]);
}

#[test]
fn a_new_key_that_is_refused_gives_way_to_the_old_one_at_once() {
    let mut world = connected(proof(1, "old"));
    world.rollover.set_key(key("new")).unwrap();
    assert_eq!(world.until_in(), [AT_ONCE, Outcome::Reverted]);
    assert_eq!(world.rollover.kept(), &Kept::default());
    assert_eq!(world.rollover.set_key(key("newer")), Ok(Change::Trial), "it may be tried again");
}

#[test]
fn a_csms_that_cant_be_reached_says_nothing_about_a_key() {
    let mut world = connected(proof(2, "old"));
    world.rollover.set_key(key("new")).unwrap();
    world.reachable = [false; 2];
    for _ in 0..100 {
        assert_eq!(world.connect(), (false, vec![]));
    }
    // It takes both for a while; the new one is what it was told.
    world.reachable = [true; 2];
    world.accepts = vec![proof(2, "old"), proof(2, "new")];
    assert_eq!(world.until_in(), [Outcome::Settled]);
}

#[test]
fn power_lost_at_any_moment_leaves_a_device_that_gets_in() {
    for accepted in ["old", "new"] {
        for lost_after in 0..4 {
            let mut world = connected(proof(2, "old"));
            world.rollover.set_key(key("new")).unwrap();
            world.accepts = vec![proof(2, accepted)];
            for _ in 0..lost_after {
                world.connect();
            }
            world.restart();
            world.until_in();
            assert_eq!(world.rollover.proof(), proof(2, accepted), "power lost after {lost_after} tries");
            assert_eq!(world.rollover.kept().trial, None);
            world.restart();
            world.until_in();
        }
    }
}

#[test]
fn a_csms_that_forgot_the_key_it_set_gets_the_files_and_nothing_is_forgotten() {
    let mut world = connected(proof(2, "file"));
    world.rollover.set_key(key("set")).unwrap();
    world.accepts = vec![proof(2, "set")];
    world.until_in();
    let kept = world.rollover.kept().clone();

    world.accepts = vec![proof(2, "file")];
    assert_eq!(world.until_in(), [AT_ONCE]);
    assert_eq!((world.rollover.candidate(), world.rollover.kept()), (Candidate::File, &kept));
    // And back again, without a repetition that doesn't wait.
    world.accepts = vec![proof(2, "set")];
    assert_eq!(world.until_in(), [LATER]);
    assert_eq!(world.rollover.candidate(), Candidate::InUse);

    world.accepts = vec![proof(2, "file")];
    world.until_in();
    assert_eq!(world.rollover.set_key(key("third")), Ok(Change::Trial), "a third may be set over that link");
    world.accepts = vec![proof(2, "third")];
    assert_eq!(world.until_in(), [Outcome::Settled]);
}

#[test]
fn refused_with_everything_it_goes_round_with_a_wait_in_each_round() {
    let mut world = connected(proof(2, "file"));
    world.rollover.set_key(key("set")).unwrap();
    world.accepts = vec![proof(2, "set")];
    world.until_in();
    world.rollover.set_key(key("third")).unwrap();
    world.accepts = Vec::new();
    for _ in 0..5 {
        assert_eq!(world.connect().1, [AT_ONCE]);
        assert_eq!(world.connect().1, [AT_ONCE]);
        assert_eq!(world.connect().1, [LATER]);
    }
    assert_eq!(world.rollover.kept().trial, Some(proof(2, "third")));
}

#[test]
fn one_key_alone_is_tried_again_and_again() {
    let mut world = World::new(proof(2, "only"), Kept::default(), &[]);
    for _ in 0..100 {
        assert_eq!(world.connect(), (false, vec![]));
    }
    assert_eq!(world.rollover.number(), 0);
}

#[test]
fn a_higher_profile_that_works_stays_whatever_the_file_says() {
    let mut world = connected(proof(1, "key"));
    assert_eq!(world.rollover.set_profile(2), Ok(Change::Trial));
    world.accepts = vec![proof(2, "key")];
    assert_eq!(world.until_in(), [Outcome::Settled]);
    world.restart();
    assert_eq!(world.rollover.proof(), proof(2, "key"));
    assert_eq!(world.rollover.set_profile(1), Err(Refused::Down));
    assert_eq!(world.rollover.set_profile(2), Ok(Change::Unchanged));
    // The file may raise it, and not lower it.
    let kept = world.rollover.kept().clone();
    for (configured, expected) in [(0, 2), (1, 2), (2, 2), (3, 3)] {
        let rollover = Rollover::new(proof(configured, "key"), kept.clone());
        assert_eq!(rollover.proof().profile, expected);
    }
}

#[test]
fn a_higher_profile_that_reaches_nobody_is_given_up_after_some_tries() {
    let mut world = connected(proof(1, "key"));
    world.reachable = [true, false];
    world.rollover.set_profile(2).unwrap();
    world.tries.clear();
    assert_eq!(world.until_in(), [AT_ONCE, Outcome::Reverted]);
    let profiles: Vec<u8> = world.tries.iter().map(|(profile, _)| *profile).collect();
    assert_eq!(profiles, [2, 2, 2, 1]);
    assert_eq!(world.rollover.kept(), &Kept::default());
}

#[test]
fn a_csms_that_doesnt_ask_for_what_a_higher_profile_is_about_doesnt_reach_it() {
    let mut world = connected(proof(2, "key"));
    world.rollover.set_profile(3).unwrap();
    assert!(world.rollover.is_raising());
    world.accepts = vec![proof(2, "key"), proof(3, "key")];
    // TLS, and neither a password nor a certificate.
    world.live = Some(0);
    assert_eq!(world.connect(), (true, vec![AT_ONCE]));
    world.live = None;
    assert_eq!(world.until_in(), [Outcome::Reverted]);
    assert_eq!(world.rollover.proof().profile, 2);
}

#[test]
fn while_the_network_is_down_both_profiles_are_tried_in_turn() {
    let mut world = connected(proof(1, "key"));
    world.rollover.set_profile(2).unwrap();
    world.reachable = [false; 2];
    for _ in 0..30 {
        world.connect();
    }
    assert!(world.tries.iter().any(|(profile, _)| *profile == 1));
    world.reachable = [true; 2];
    world.accepts = vec![proof(2, "key")];
    assert_eq!(world.until_in().last(), Some(&Outcome::Settled));
}

#[test]
fn a_trial_under_way_leaves_no_room_for_another() {
    let mut world = connected(proof(1, "old"));
    world.rollover.set_key(key("new")).unwrap();
    assert_eq!(world.rollover.set_key(key("newer")), Err(Refused::Busy));
    assert_eq!(world.rollover.set_profile(2), Err(Refused::Busy));
    assert_eq!(world.rollover.set_profile(0), Err(Refused::Down));
}

#[test]
fn the_same_key_changes_nothing_and_one_that_the_link_doesnt_use_is_only_kept() {
    let mut world = connected(proof(2, "key"));
    assert_eq!(world.rollover.set_key(key("key")), Ok(Change::Unchanged));

    let mut world = connected(Proof { profile: 0, key: None });
    assert_eq!(world.rollover.set_key(key("first")), Ok(Change::Stored));
    assert_eq!(world.rollover.set_profile(1), Ok(Change::Trial));
    world.accepts = vec![proof(1, "first")];
    assert_eq!(world.until_in(), [Outcome::Settled]);
    assert_eq!(world.rollover.kept(), &Kept { profile: Some(1), key: Some(key("first")), trial: None });
}

#[test]
fn a_trial_that_cant_be_tried_is_given_up() {
    let kept = Kept { trial: Some(proof(3, "key")), ..Kept::default() };
    let mut world = World::new(proof(2, "key"), kept, &[proof(2, "key")]);
    assert_eq!(world.rollover.candidate(), Candidate::Trial);
    world.rollover.abandon_trial();
    assert_eq!(world.until_in(), []);
    assert_eq!(world.rollover.kept(), &Kept::default());
}

#[test]
fn what_happened_to_an_earlier_candidate_says_nothing_of_this_one() {
    let mut world = connected(proof(2, "old"));
    world.rollover.set_key(key("new")).unwrap();
    let stale = Attempts { profile: 0, failed: 9, refused: 9, proven: Some(2) };
    assert_eq!(world.rollover.observe(&stale), None);
}
