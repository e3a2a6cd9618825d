//! What could not be seen. It is told beside what could; nothing is given up for it.

use std::{error::Error as _, time::Duration};

use kube::Error;

/// Lines for the person, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unseen(Vec<String>);

impl Unseen {
    pub(crate) fn say(&mut self, line: impl Into<String>) {
        let line = line.into();
        if !self.0.contains(&line) {
            self.0.push(line);
        }
    }

    pub(crate) fn lines(&self) -> &[String] {
        &self.0
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        other.0.iter().for_each(|line| self.say(line));
    }

    /// The answer to a call, or a line that says which right or what else was missing.
    pub(crate) async fn look<T: Default>(
        &mut self,
        verb: &str,
        resource: &str,
        place: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> T {
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(Ok(found)) => return found,
            Ok(Err(error)) => self.say(line(verb, resource, place, &error)),
            Err(_) => {
                let seconds = PATIENCE.as_secs();
                self.say(format!("cannot {verb} {resource}{place}: no answer within {seconds} s"));
            }
        }
        T::default()
    }
}

/// How long a call that is not a stream may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

fn line(verb: &str, resource: &str, place: &str, error: &Error) -> String {
    match error {
        Error::Api(status) if status.code == 403 => format!("forbidden: {verb} {resource}{place}"),
        error => format!("cannot {verb} {resource}{place}: {}", words(error)),
    }
}

/// What the API server said, or why nobody said anything, down to the cause.
pub(crate) fn words(error: &Error) -> String {
    match error {
        Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        Error::Api(status) => format!("{} {}", status.code, status.reason),
        Error::Service(source) => {
            let mut cause: &dyn std::error::Error = source.as_ref();
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            format!("the API server cannot be reached: {cause}")
        }
        error => error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}")),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[tokio::test]
    async fn a_forbidden_call_names_verb_and_resource_once_and_the_rest_goes_on() {
        let mut unseen = Unseen::default();
        for _ in 0..2 {
            let refused =
                async { Err::<Vec<u8>, _>(Error::Api(Box::new(Status { code: 403, ..Status::default() }))) };
            assert!(unseen.look("list", "pods", " in namespace team", refused).await.is_empty());
        }
        let found = unseen.look("list", "services", "", async { Ok(vec![1]) }).await;
        assert_eq!(found, [1]);
        assert_eq!(unseen.lines(), ["forbidden: list pods in namespace team"]);
    }
}
