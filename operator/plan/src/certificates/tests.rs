use proptest::prelude::*;

use super::*;

const LIFETIME: SignedDuration = SignedDuration::from_hours(30 * 24);
const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn hours(count: i64) -> Timestamp {
    after(start(), SignedDuration::from_hours(count))
}

fn certificate(id: &str, made: Timestamp, life: SignedDuration) -> Certificate {
    Certificate { id: id.to_owned(), made, ends: after(made, life) }
}

fn authority(id: &str, made: Timestamp) -> Certificate {
    certificate(id, made, authority_lifetime(LIFETIME))
}

fn leaf(issuer: &str, made: Timestamp) -> Leaf {
    Leaf { certificate: certificate("leaf", made, LIFETIME), issuer: issuer.to_owned() }
}

/// What is made, and which authorities stay in the bundle.
fn planned(seen: &Certificates, now: Timestamp) -> (Option<&'static str>, Option<&'static str>, Vec<String>) {
    let CertificatePlan { authority, leaf, keep } = certificates(seen, LIFETIME, "uid", now);
    (authority, leaf, keep.into_iter().collect())
}

#[test]
fn a_fleet_at_rest_makes_nothing_and_a_new_one_makes_both() {
    let (a, none) = (authority("a", start()), Certificates::default());
    let rest = Certificates { authority: Some(a.clone()), leaf: Some(leaf("a", hours(1))), trusted: vec![a] };
    assert_eq!(planned(&rest, hours(400)), (None, None, vec!["a".to_owned()]));
    let missing = (Some("there is no usable authority"), Some("there is no usable certificate"), Vec::new());
    assert_eq!(planned(&none, start()), missing);
}

#[test]
fn what_is_lost_or_has_ended_is_made_anew_and_what_still_holds_is_used_meanwhile() {
    let (a, b) = (authority("a", start()), authority("b", hours(400)));
    let whole =
        Certificates { authority: Some(a.clone()), leaf: Some(leaf("a", start())), trusted: vec![a.clone()] };
    let both = vec!["a".to_owned(), "b".to_owned()];
    let old = vec!["a".to_owned()];
    let gone = "there is no usable authority";
    let due = "two thirds of the certificate's life are over";
    for (what, seen, now, expected) in [
        (
            "the leaf's Secret is lost",
            Certificates { leaf: None, trusted: Vec::new(), ..whole.clone() },
            hours(2),
            (None, Some("there is no usable certificate"), Vec::new()),
        ),
        (
            "the leaf is damaged",
            Certificates { leaf: None, ..whole.clone() },
            hours(2),
            (None, Some("there is no usable certificate"), old.clone()),
        ),
        (
            "the authority's Secret is lost: the leaf is used until everybody trusts the next one",
            Certificates { authority: None, ..whole.clone() },
            hours(2),
            (Some(gone), None, old.clone()),
        ),
        ("the leaf has reached its age", whole.clone(), hours(480), (None, Some(due), old.clone())),
        (
            "the leaf has ended, because no operator ran",
            whole.clone(),
            hours(721),
            (None, Some("the certificate has ended"), old.clone()),
        ),
        (
            "a new authority is not trusted by all yet",
            Certificates { authority: Some(b.clone()), trusted: vec![a.clone(), b.clone()], ..whole.clone() },
            after(hours(400), HOUR - SignedDuration::from_secs(1)),
            (None, None, both.clone()),
        ),
        (
            "now it is",
            Certificates { authority: Some(b.clone()), trusted: vec![a.clone(), b.clone()], ..whole.clone() },
            hours(401),
            (None, Some("a new authority signs"), both.clone()),
        ),
        (
            "the old one stays while its last leaf may be used",
            Certificates {
                authority: Some(b.clone()),
                leaf: Some(leaf("b", hours(401))),
                trusted: vec![a.clone(), b.clone()],
            },
            hours(700),
            (None, None, both),
        ),
        (
            "and goes then",
            Certificates {
                authority: Some(b.clone()),
                leaf: Some(leaf("b", hours(900))),
                trusted: vec![a.clone(), b.clone()],
            },
            hours(401 + 720),
            (None, None, vec!["b".to_owned()]),
        ),
        (
            "somebody took the authority out of the bundle",
            Certificates { authority: Some(b), leaf: Some(leaf("a", hours(300))), trusted: vec![a] },
            hours(500),
            (Some("the authority is missing in the bundle"), None, old),
        ),
    ] {
        assert_eq!(planned(&seen, now), expected, "{what}");
    }
}

#[test]
fn fleets_renew_at_different_times_near_two_thirds() {
    let certificate = certificate("leaf", start(), LIFETIME);
    let ages: BTreeSet<i64> = (0..50)
        .map(|fleet| renewal(&certificate, &fleet.to_string()).duration_since(start()).as_hours())
        .collect();
    assert!(ages.len() > 30 && ages.iter().all(|age| (400..=480).contains(age)), "{ages:?}");
}

/// What one process has read: its certificate, and whom it trusts.
#[derive(Debug, Clone)]
struct Read {
    leaf: Leaf,
    trusted: BTreeSet<String>,
}

impl Read {
    fn accepts(&self, peer: &Self, now: Timestamp) -> bool {
        self.trusted.contains(&peer.leaf.issuer) && now < peer.leaf.certificate.ends
    }
}

/// Secrets, as the operator writes them.
#[derive(Debug, Default)]
struct Store {
    seen: Certificates,
    made: u32,
    history: Vec<(Timestamp, Read)>,
}

impl Store {
    fn follow(&mut self, plan: &CertificatePlan, now: Timestamp) {
        self.seen.trusted.retain(|known| plan.keep.contains(&known.id));
        if plan.authority.is_some() {
            self.made += 1;
            let fresh = authority(&format!("authority-{}", self.made), now);
            self.seen.trusted.push(fresh.clone());
            self.seen.authority = Some(fresh);
        }
        let signer = self.seen.authority.clone().unwrap();
        if !self.seen.trusted.contains(&signer) {
            self.seen.trusted.push(signer.clone());
        }
        if plan.leaf.is_some() {
            self.seen.leaf = Some(leaf(&signer.id, now));
        }
        let trusted = self.seen.trusted.iter().map(|known| known.id.clone()).collect();
        self.history.push((now, Read { leaf: self.seen.leaf.clone().unwrap(), trusted }));
    }

    /// What a process has that sees everything so much later.
    fn read(&self, now: Timestamp, late: SignedDuration) -> Option<&Read> {
        let at = now.checked_sub(late).ok()?;
        self.history.iter().rev().find(|(written, _)| *written <= at).map(|(_, read)| read)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Over three years, with operators that are away for days and an authority's Secret that is deleted at any
    /// time, two processes of a fleet never refuse each other, and the bundle stays small.
    #[test]
    fn no_two_processes_of_a_fleet_ever_refuse_each_other(
        seed in "[a-z]{8}",
        absences in prop::collection::vec((0i64..700, 1i64..200), 26),
        losses in prop::collection::btree_set(0i64..26_000, 0..6),
        lags in prop::collection::vec(0i64..60, 2..5),
    ) {
        let mut store = Store::default();
        for hour in 0..26_000 {
            let now = hours(hour);
            if losses.contains(&hour) {
                store.seen.authority = None;
            }
            let (from, length) = absences[hour as usize / 1000];
            if hour == 0 || !(from..from + length).contains(&(hour % 1000)) {
                let plan = certificates(&store.seen, LIFETIME, &seed, now);
                store.follow(&plan, now);
            }
            prop_assert!(store.seen.trusted.len() <= MAX_TRUSTED);
            let late = lags.iter().map(|minutes| SignedDuration::from_mins(*minutes));
            let read: Vec<&Read> = late.filter_map(|late| store.read(now, late)).collect();
            for (one, other) in read.iter().flat_map(|one| read.iter().map(move |other| (one, other))) {
                prop_assert!(one.accepts(other, now), "hour {hour}: {one:?} refuses {other:?}");
            }
        }
        prop_assert!(store.made >= 3, "authorities were exchanged");
    }
}
