//! Names of Kubernetes objects: a type each, so that one that is too long cannot be made.

use std::fmt;

use shoal_plan::Role;

/// Longest DNS label; Services, Pods' host names and label values allow no more.
pub const MAX_LABEL: usize = 63;
/// Hex digits that stand for what was cut off.
const HASH: usize = 8;

/// A DNS label of at most 63 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// `<stem>-<suffix>`. A stem that does not fit is cut and ends in a hash of the whole of it, so that two
    /// long stems stay two names.
    pub fn new(stem: &str, suffix: &str) -> Self {
        let room = MAX_LABEL.saturating_sub(suffix.len() + 1);
        if stem.len() <= room {
            return Self(format!("{stem}-{suffix}"));
        }
        let hash: String = blake3::hash(stem.as_bytes()).to_hex().chars().take(HASH).collect();
        let kept: String = stem.chars().take(room.saturating_sub(HASH + 1)).collect();
        Self(format!("{}-{hash}-{suffix}", kept.trim_end_matches('-')))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> Self {
        name.0
    }
}

/// Names of the objects of one cluster. Pods have two numbers at their end and everything else a word, so
/// that no name of one cluster can be that of another.
#[derive(Debug, Clone)]
pub struct Names<'a> {
    cluster: &'a str,
}

impl<'a> Names<'a> {
    pub fn of(cluster: &'a str) -> Self {
        Self { cluster }
    }

    /// Everything that only the gateway needs: Deployment, Service, account, role and so on.
    pub fn gateway(&self) -> ObjectName {
        ObjectName::new(self.cluster, "gateway")
    }

    /// Headless Service and network policy of the instances.
    pub fn instances(&self) -> ObjectName {
        ObjectName::new(self.cluster, "instances")
    }

    /// The `ServingRole` of one role.
    pub fn role(&self, role: Role) -> ObjectName {
        ObjectName::new(self.cluster, role.as_str())
    }

    pub fn fleet_secret(&self) -> ObjectName {
        ObjectName::new(self.cluster, "fleet")
    }

    /// The authority of the fleet's certificates, with its key.
    pub fn authority(&self) -> ObjectName {
        ObjectName::new(self.cluster, "ca")
    }

    /// The certificate that the processes of the fleet have.
    pub fn certificate(&self) -> ObjectName {
        ObjectName::new(self.cluster, "tls")
    }

    /// The pod of an instance: a replaced instance keeps its own name and gets a pod of the next number, so
    /// that it need not wait until its old pod is gone, which takes long on a node that is lost.
    pub fn pod(instance: &str, attempt: u32) -> ObjectName {
        ObjectName::new(instance, &attempt.to_string())
    }

    /// Instance and number of a pod that was named so.
    pub fn instance_of(pod: &str) -> Option<(&str, u32)> {
        let (instance, attempt) = pod.rsplit_once('-')?;
        Some((instance, attempt.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn is_label(name: &str) -> bool {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| inner(byte) && byte != b'-');
        name.len() <= MAX_LABEL
            && name.bytes().all(inner)
            && edge(name.bytes().next())
            && edge(name.bytes().next_back())
    }

    fn all(cluster: &str) -> Vec<String> {
        let names = Names::of(cluster);
        let pods = (0..3).flat_map(|instance| {
            (1..3).map(move |attempt| Names::pod(&format!("{cluster}-{instance}"), attempt))
        });
        [names.gateway(), names.instances(), names.fleet_secret(), names.authority(), names.certificate()]
            .into_iter()
            .chain(Role::ALL.map(|role| names.role(role)))
            .chain(pods)
            .map(String::from)
            .collect()
    }

    proptest! {
        #[test]
        fn every_name_is_a_dns_label_and_none_is_that_of_another_cluster(
            one in "[a-z][-a-z0-9]{0,80}[a-z0-9]", other in "[a-z][-a-z0-9]{0,80}[a-z0-9]"
        ) {
            prop_assume!(one != other);
            let (ours, theirs) = (all(&one), all(&other));
            for name in &ours {
                prop_assert!(is_label(name), "{name}");
            }
            let distinct: BTreeSet<&String> = ours.iter().chain(&theirs).collect();
            prop_assert_eq!(distinct.len(), ours.len() + theirs.len());
        }

        #[test]
        fn the_instance_of_a_pod_is_in_its_name(instance in "[a-z][-a-z0-9]{0,40}-[0-9]", attempt in 1u32..) {
            let pod = Names::pod(&instance, attempt);
            prop_assert_eq!(Names::instance_of(pod.as_str()), Some((instance.as_str(), attempt)));
        }

        #[test]
        fn a_cluster_named_like_a_child_of_another_still_has_names_of_its_own(
            stem in "[a-z]{1,12}", tail in prop::sample::select(vec!["gateway", "0", "0-1", "fleet", "tls", "1"])
        ) {
            let (ours, theirs) = (all(&stem), all(&format!("{stem}-{tail}")));
            prop_assert!(ours.iter().all(|name| !theirs.contains(name)), "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn the_longest_cluster_name_that_the_resource_allows_is_never_cut() {
        let longest = "c".repeat(shoal_crds::MAX_NAME_LENGTH);
        for name in all(&longest).into_iter().chain([Names::pod(&format!("{longest}-63"), u32::MAX).into()]) {
            assert!(name.starts_with(&longest), "{name}");
        }
    }
}
