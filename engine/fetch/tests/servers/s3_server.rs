//! An S3 store over a folder, which checks signatures.

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rusty_s3::Credentials;
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use shoal_fetch::store::Store;

#[derive(Debug)]
pub(crate) struct S3Server {
    address: std::net::SocketAddr,
    _folder: tempfile::TempDir,
}

impl S3Server {
    const KEY: &str = "reader";
    pub(crate) const SECRET: &str = "a secret of the store";

    pub(crate) async fn start(bucket: &str, key: &str, content: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(bucket).join(key);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(Self::KEY, Self::SECRET));
        let service = builder.build();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { address, _folder: folder }
    }

    /// The store as somebody with this secret sees it.
    pub(crate) fn store(&self, secret: &str) -> Store {
        let endpoint = format!("http://{}", self.address).parse().unwrap();
        Store::new(Some(endpoint), "us-east-1", Some(Credentials::new(Self::KEY, secret)))
    }
}
