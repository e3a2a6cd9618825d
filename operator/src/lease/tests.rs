use super::*;

fn lease(holder: &str, transitions: i32) -> Lease {
    Lease {
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(30),
            lease_transitions: Some(transitions),
            // Far in the future: a clock that differs must not matter.
            renew_time: Some(MicroTime(k8s_openapi::jiff::Timestamp::MAX)),
            ..LeaseSpec::default()
        }),
        ..Lease::default()
    }
}

#[test]
fn only_time_without_a_change_or_a_release_lets_somebody_else_in() {
    let seconds = Duration::from_secs;
    for (found, unchanged, decision) in [
        (None, seconds(0), Decision::Create),
        (Some(lease("me", 3)), seconds(0), Decision::Renew),
        (Some(lease("me", 3)), seconds(99), Decision::Renew),
        (Some(lease("other", 3)), seconds(29), Decision::Wait),
        (Some(lease("other", 3)), seconds(30), Decision::Take),
        (Some(lease("", 3)), seconds(0), Decision::Take),
    ] {
        assert_eq!(decide(found.as_ref(), "me", unchanged), decision, "{found:?}");
    }
}

fn elector() -> Elector {
    let (service, _handle) =
        tower_test::mock::pair::<http::Request<kube::client::Body>, http::Response<kube::client::Body>>();
    let settings = Settings { namespace: "ns".to_owned(), name: "op".to_owned(), identity: "me".to_owned() };
    Elector::new(Client::new(service, "ns"), settings, Arc::default()).0
}

#[tokio::test]
async fn taking_the_lease_raises_the_epoch_and_renewing_it_does_not() {
    let elector = elector();
    assert_eq!(epoch(&elector.next(lease("other", 3), true)), 5);
    assert_eq!(epoch(&elector.next(lease("me", 4), false)), 5);
    let held = elector.next(lease("other", 3), true).spec.unwrap();
    assert_eq!(held.holder_identity.as_deref(), Some("me"));
    assert!(held.acquire_time.is_some());
}

#[tokio::test]
async fn a_lease_that_was_deleted_and_made_again_goes_on_above_earlier_epochs() {
    let fresh = epoch(&elector().fresh());
    let age = Timestamp::now().as_second() - EPOCHS_BEGIN;
    assert!(fresh > 1 && (fresh as i64 - age).abs() <= 2, "{fresh} {age}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_ends_by_itself_and_whoever_waits_for_its_end_is_told() {
    let (sender, receiver) = watch::channel(None);
    let mut leadership = Leadership(receiver);
    assert_eq!(leadership.epoch(), None);
    sender.send_replace(Some(Claim { epoch: 7, until: Instant::now() + Duration::from_millis(50) }));
    leadership.gained().await;
    assert_eq!(leadership.epoch(), Some(7));
    sender.send_replace(Some(Claim { epoch: 7, until: Instant::now() }));
    leadership.lost().await;
    assert_eq!(leadership.epoch(), None, "nobody had to take it away");
}
