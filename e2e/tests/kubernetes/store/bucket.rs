//! An S3 store over a folder, which checks signatures.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;

use super::{Wholes, listen};

const NAME: &str = "models";
const KEY: &str = "reader";

#[derive(Debug)]
pub(crate) struct Bucket {
    address: SocketAddr,
    pub(crate) wholes: Wholes,
    _folder: TempDir,
}

impl Bucket {
    pub(crate) const SECRET: &str = "a secret of the store";

    /// Holds that file under this key.
    pub(crate) async fn start(key: &str, file: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join(NAME))?;
        std::os::unix::fs::symlink(file, folder.path().join(NAME).join(key))?;
        let files = FileSystem::new(folder.path()).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(KEY, Self::SECRET));
        let (store, wholes, listener) = (builder.build(), Wholes::default(), listen().await?);
        let (address, noted) = (listener.local_addr()?, wholes.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (store, noted) = (store.clone(), noted.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    noted.note(&request);
                    Service::call(&store, request)
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
        });
        Ok(Self { address, wholes, _folder: folder })
    }

    pub(crate) fn url(key: &str) -> String {
        format!("s3://{NAME}/{key}")
    }

    /// What a Secret for whoever has `secret` holds.
    pub(crate) fn credentials(&self, secret: &str) -> [(&'static str, String); 3] {
        [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
        ]
    }
}
