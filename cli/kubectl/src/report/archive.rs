//! A gzipped tar file whose every byte went through redaction, with an end to its size. It has its name when it is whole.

use std::path::{Path, PathBuf};

use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use shoal_terminal::failure::{Attempt as _, Failure};
use tempfile::NamedTempFile;

use super::redact::Redaction;
use crate::cluster::Unseen;

/// Bytes of all files together.
const MOST: u64 = 256 << 20;

/// `contents.json`, the last file.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Contents {
    made: Option<Timestamp>,
    made_by: String,
    redacted: &'static str,
    pub(crate) bytes: u64,
    pub(crate) files: Vec<String>,
    pub(crate) left_out: Vec<String>,
}

pub(crate) struct Archive {
    /// Beside the path; gone with this, unless it is finished.
    tar: tar::Builder<GzEncoder<NamedTempFile>>,
    path: PathBuf,
    redaction: Redaction,
    contents: Contents,
    left_out: Unseen,
    now: Timestamp,
}

impl Archive {
    /// A new file that only its owner may read.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let refused = |why: String| Failure::invalid(format!("--output {}: {why}", path.display()));
        if path.exists() {
            return Err(refused("is there already".to_owned()));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut unfinished = tempfile::Builder::new();
        unfinished.prefix(".shoal-report-").suffix(".unfinished");
        let file = unfinished
            .tempfile_in(folder.unwrap_or_else(|| Path::new(".")))
            .map_err(|error| refused(error.to_string()))?;
        let now = Timestamp::now();
        let contents = Contents {
            made: Some(now),
            made_by: format!("kubectl-shoal {}", env!("CARGO_PKG_VERSION")),
            redacted: "values of environment variables, applied configurations, arguments and fields named like \
                       secrets, bearer tokens, keys of known forms, user names and queries of URLs",
            ..Contents::default()
        };
        Ok(Self {
            tar: tar::Builder::new(GzEncoder::new(file, Compression::default())),
            path: path.to_owned(),
            redaction: Redaction::new()?,
            contents,
            left_out: Unseen::default(),
            now,
        })
    }

    /// An object of the API server, as YAML.
    pub(crate) fn object(&mut self, path: &str, mut object: Value) -> Result<(), Failure> {
        self.redaction.object(&mut object);
        let text = serde_saphyr::to_string(&object).attempt(|| format!("cannot write {path}"))?;
        self.append(path, &text)
    }

    pub(crate) fn json(&mut self, path: &str, data: &impl Serialize) -> Result<(), Failure> {
        let mut value = serde_json::to_value(data).attempt(|| format!("cannot write {path}"))?;
        self.redaction.object(&mut value);
        self.append(path, &format!("{value:#}\n"))
    }

    pub(crate) fn text(&mut self, path: &str, text: &str) -> Result<(), Failure> {
        let text = self.redaction.text(text);
        self.append(path, &text)
    }

    pub(crate) fn left_out(&mut self, line: impl Into<String>) {
        self.left_out.say(line);
    }

    pub(crate) fn left_out_all(&mut self, unseen: &Unseen) {
        self.left_out.extend(unseen);
    }

    fn append(&mut self, path: &str, text: &str) -> Result<(), Failure> {
        let bytes = text.len() as u64;
        if self.contents.bytes + bytes > MOST {
            self.left_out.say(format!("{path}: the archive would be larger than {} MiB", MOST >> 20));
            return Ok(());
        }
        self.write(path, text)?;
        self.contents.bytes += bytes;
        self.contents.files.push(path.to_owned());
        Ok(())
    }

    fn write(&mut self, path: &str, text: &str) -> Result<(), Failure> {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(self.now.as_second()).unwrap_or_default());
        self.tar
            .append_data(&mut header, path, text.as_bytes())
            .attempt(|| format!("cannot write {path} into the archive"))
    }

    pub(crate) fn finish(mut self) -> Result<Contents, Failure> {
        self.contents.left_out = self.left_out.lines().iter().map(|line| self.redaction.text(line)).collect();
        let mut contents =
            serde_json::to_value(&self.contents).attempt(|| "cannot write contents.json".to_owned())?;
        contents["made"] = serde_json::json!(self.now.to_string());
        self.write("contents.json", &format!("{contents:#}\n"))?;
        let attempt = || "cannot finish the archive".to_owned();
        let file = self.tar.into_inner().attempt(attempt)?.finish().attempt(attempt)?;
        file.persist_noclobber(&self.path).attempt(attempt)?;
        Ok(self.contents)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _, os::unix::fs::MetadataExt as _};

    use serde_json::json;

    use super::*;

    /// Where a careless user or program may put a secret.
    fn planted(secret: &str) -> Value {
        json!({
            "kind": "Pod",
            "metadata": {
                "name": "chat-0-1",
                "managedFields": [{ "manager": secret }],
                "annotations": { "kubectl.kubernetes.io/last-applied-configuration": format!("{{\"env\":\"{secret}\"}}") }
            },
            "spec": { "containers": [{
                "env": [{ "name": "TOKEN", "value": secret }, { "name": "HARMLESS", "value": secret }],
                "args": ["--api-token", secret, format!("--password={secret}"), "--model", "/models/x.gguf"],
                "command": ["sh", "-c", format!("curl -H 'Authorization: Bearer {secret}' https://x/?sig={secret}")],
                "password": secret,
                "source": { "url": format!("https://user:{secret}@host/model?X-Amz-Signature={secret}") }
            }] }
        })
    }

    #[test]
    fn a_planted_secret_is_nowhere_in_the_archive_and_what_is_harmless_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.tar.gz");
        let secret = "hunter2-c0rrect-h0rse";
        let mut archive = Archive::create(&path).unwrap();
        archive.object("objects/pods/chat-0-1.yaml", planted(secret)).unwrap();
        let log = format!(
            "INFO loading\nWARN Authorization: Bearer {secret}\nretry https://h/x?token={secret} api_key={secret}\n"
        );
        archive.text("logs/chat-0-1.log", &log).unwrap();
        archive.left_out(format!("cannot get https://a:{secret}@b/c"));
        archive.finish().unwrap();

        let mut whole = String::new();
        let mut names = Vec::new();
        let mut read = tar::Archive::new(flate2::read::GzDecoder::new(File::open(&path).unwrap()));
        for entry in read.entries().unwrap() {
            let mut entry = entry.unwrap();
            names.push(entry.path().unwrap().display().to_string());
            entry.read_to_string(&mut whole).unwrap();
        }
        assert_eq!(names, ["objects/pods/chat-0-1.yaml", "logs/chat-0-1.log", "contents.json"]);
        assert!(!whole.contains(secret), "{whole}");
        for kept in ["HARMLESS", "/models/x.gguf", "INFO loading", "left", "chat-0-1"] {
            assert!(whole.contains(kept), "{kept} is missing:\n{whole}");
        }
    }

    #[test]
    fn an_archive_that_is_given_up_leaves_nothing_and_one_that_is_finished_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.tar.gz");
        let there = || std::fs::read_dir(folder.path()).unwrap().count();
        let mut archive = Archive::create(&path).unwrap();
        archive.text("logs/chat-0-1.log", "loading").unwrap();
        assert!(!path.exists(), "half an archive would be taken for a whole one");
        drop(archive);
        assert_eq!(there(), 0);
        Archive::create(&path).unwrap().finish().unwrap();
        assert_eq!(there(), 1);
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600, "only its owner may read it");
        let missing = Archive::create(&folder.path().join("nowhere/report.tar.gz")).err();
        assert!(missing.is_some_and(|failure| failure.to_string().contains("nowhere/report.tar.gz")));
    }

    #[test]
    fn an_archive_that_exists_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.tar.gz");
        std::fs::write(&path, "mine").unwrap();
        let refused = Archive::create(&path).err().map(|failure| failure.to_string());
        assert!(refused.is_some_and(|why| why.contains("is there already")));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }
}
