//! How many instances each role is to have: whichever was edited last, the ServingCluster or its ServingRole.
//!
//! A ServingRole notes which count of its ServingCluster it last followed. While that is still the count there,
//! the ServingRole rules, whoever scaled it; when it is not, somebody has edited the ServingCluster, and the
//! ServingRole follows. So a manifest that is applied again changes nothing, and nothing is written into it.

use shoal_crds::{FOLLOWED_REPLICAS, MAX_REPLICAS, ServingClusterSpec, ServingClusterStatus, ServingRole};
use shoal_plan::Role;

/// One count for each role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub prefill: i32,
    pub decode: i32,
}

impl Counts {
    /// What the resource itself says.
    pub fn of(spec: &ServingClusterSpec) -> Self {
        Self { prefill: spec.prefill.replicas, decode: spec.decode.replicas }
    }

    /// What was last planned for.
    fn planned(status: &ServingClusterStatus) -> Self {
        Self { prefill: status.prefill.desired, decode: status.decode.desired }
    }

    pub fn get(self, role: Role) -> i32 {
        match role {
            Role::Prefill => self.prefill,
            Role::Decode => self.decode,
        }
    }

    /// The rules of the resource, also those that span both roles.
    fn is_allowed(self) -> bool {
        let Self { prefill, decode } = self;
        let both = prefill.checked_add(decode);
        prefill >= 0 && decode >= 1 && both.is_some_and(|both| both <= MAX_REPLICAS)
    }
}

/// The counts that ServingRoles ask for are not allowed together: nothing moves until they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the ServingRoles ask for {} prefill and {} decode instances; both together must be at most {MAX_REPLICAS}, so it \
     stays at {} and {}", asked.prefill, asked.decode, kept.prefill, kept.decode
)]
pub struct Hold {
    pub asked: Counts,
    pub kept: Counts,
}

/// The count that rules one role, which is also what its ServingRole is to say. A ServingRole whose note is gone was not seen to follow another count, and a scaling
/// is never undone on a guess.
pub fn asked(manifest: i32, role: Option<&ServingRole>) -> i32 {
    let Some(role) = role else { return manifest };
    let notes = role.metadata.annotations.as_ref();
    let followed = notes.and_then(|notes| notes.get(FOLLOWED_REPLICAS)?.parse::<i32>().ok());
    if followed.is_none_or(|followed| followed == manifest) { role.spec.replicas } else { manifest }
}

/// What to plan for: what is asked for or, while that is not allowed, what was planned for last.
pub fn allowed(
    manifest: Counts,
    asked: Counts,
    status: Option<&ServingClusterStatus>,
) -> (Counts, Option<Hold>) {
    if asked.is_allowed() {
        return (asked, None);
    }
    let last = status.map(Counts::planned).filter(|last| last.is_allowed());
    let kept = last.unwrap_or(manifest);
    (kept, Some(Hold { asked, kept }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shoal_crds::RoleStatus;

    use super::*;

    fn role(replicas: i32, followed: Option<&str>) -> ServingRole {
        let notes = followed.map(|count| json!({ FOLLOWED_REPLICAS: count }));
        serde_json::from_value(json!({
            "apiVersion": "shoal.dev/v1alpha1", "kind": "ServingRole",
            "metadata": { "name": "chat-decode", "annotations": notes },
            "spec": { "role": "decode", "replicas": replicas },
        }))
        .unwrap()
    }

    #[test]
    fn whichever_count_was_edited_last_rules() {
        for (manifest, role, rules) in [
            (2, None, 2),
            (2, Some(role(2, Some("2"))), 2),
            (2, Some(role(5, Some("2"))), 5),
            (3, Some(role(5, Some("2"))), 3),
            // Edited to what it was scaled to, and back to what it was made with.
            (5, Some(role(5, Some("2"))), 5),
            (2, Some(role(3, Some("3"))), 2),
            // The note is gone or unreadable.
            (2, Some(role(5, None)), 5),
            (2, Some(role(5, Some("many"))), 5),
        ] {
            assert_eq!(asked(manifest, role.as_ref()), rules, "{manifest} {role:?}");
        }
    }

    #[test]
    fn counts_that_are_not_allowed_together_keep_what_was_planned_last() {
        let (manifest, most) = (Counts { prefill: 1, decode: 2 }, MAX_REPLICAS);
        let fits = Counts { prefill: most - 1, decode: 1 };
        assert_eq!(allowed(manifest, fits, None), (fits, None));
        let status = |prefill, decode| ServingClusterStatus {
            prefill: RoleStatus::new(prefill, 0),
            decode: RoleStatus::new(decode, 0),
            ..ServingClusterStatus::default()
        };
        for asked in [
            Counts { prefill: most, decode: 1 },
            Counts { prefill: 0, decode: 0 },
            Counts { prefill: -1, decode: 2 },
            Counts { prefill: i32::MAX, decode: i32::MAX },
        ] {
            let kept = |status: Option<&ServingClusterStatus>| {
                let (counts, hold) = allowed(manifest, asked, status);
                assert_eq!(hold, Some(Hold { asked, kept: counts }));
                counts
            };
            assert_eq!(kept(Some(&status(3, 4))), Counts { prefill: 3, decode: 4 });
            assert_eq!(kept(None), manifest, "nothing was planned yet");
            assert_eq!(kept(Some(&status(0, 0))), manifest, "a status that speaks of no plan");
        }
    }
}
