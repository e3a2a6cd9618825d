//! Handshakes over real sockets.

use std::{path::Path, sync::Arc, time::Duration};

use futures::StreamExt as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Accepted, Class, Identity, Material, TlsError, credentials::provider};

const FLEET: &str = "chat.team.fleet.shoal.internal";
const SOON: Duration = Duration::from_secs(20);

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { pem, issuer: Issuer::new(params, key) }
}

impl Authority {
    /// A certificate for these names that ends with that year.
    fn issue(&self, names: &[&str], year: i32) -> Material {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Material {
            authorities: self.pem.clone().into_bytes(),
            certificate: certificate.into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }

    fn member(&self) -> Material {
        self.issue(&[FLEET], 2999)
    }
}

fn trusting(material: &Material, authorities: &[&Authority]) -> Material {
    let all: String = authorities.iter().map(|authority| authority.pem.as_str()).collect();
    Material { authorities: all.into_bytes(), ..material.clone() }
}

/// Sends back what it gets, on every connection that it lets in.
async fn server(identity: &Identity) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut incoming = identity.incoming(listener);
    tokio::spawn(async move {
        while let Some(Ok(accepted)) = incoming.next().await {
            tokio::spawn(echo(accepted));
        }
    });
    address
}

async fn echo(mut accepted: Accepted) {
    let mut byte = [0];
    while accepted.read_exact(&mut byte).await.is_ok() && accepted.write_all(&byte).await.is_ok() {
        let _ = accepted.flush().await;
    }
}

type Stream = TlsStream<TcpStream>;

async fn connect(identity: &Arc<Identity>, address: &str) -> std::io::Result<Stream> {
    let uri = format!("http://{address}").parse().unwrap();
    super::connect::connect(Arc::clone(identity), uri).await.map(hyper_util::rt::TokioIo::into_inner)
}

/// A client that does not look at its own certificate, and may have none.
async fn careless(address: &str, own: Option<&Material>, trusted: &Authority) -> std::io::Result<Stream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.pem.as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let chain = vec![CertificateDer::from_pem_slice(&own.certificate).unwrap()];
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&own.key).unwrap()).unwrap()
        }
    };
    let name = ServerName::try_from(FLEET).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}

/// A byte there and back. In version 1.3 a client learns only now what the server thinks of it.
async fn ask(stream: std::io::Result<Stream>) -> Result<(), String> {
    let asked = async {
        let mut stream = stream?;
        stream.write_all(b"x").await?;
        stream.flush().await?;
        stream.read_exact(&mut [0]).await
    };
    timeout(SOON, asked).await.expect("an answer or a refusal").map(drop).map_err(|error| error.to_string())
}

fn peer(stream: &Stream) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn two_of_one_fleet_talk_whatever_the_address_is() {
    let authority = authority("one");
    let (ours, theirs) =
        (Identity::new(&authority.member()).unwrap(), Identity::new(&authority.member()).unwrap());
    let address = server(&ours).await;
    ask(connect(&theirs, &address).await).await.unwrap();
    assert_eq!(ours.name(), FLEET);
}

#[tokio::test]
async fn a_server_refuses_who_is_not_of_its_fleet_and_the_client_learns_why() {
    let (authority, stranger) = (authority("one"), authority("two"));
    let address = server(&Identity::new(&authority.member()).unwrap()).await;
    let (theirs, expired) = (stranger.member(), authority.issue(&[FLEET], 2021));
    let other = authority.issue(&["chat.other.fleet.shoal.internal"], 2999);
    for (who, own, why) in [
        ("nobody", None, "CertificateRequired"),
        ("another authority's", Some(&theirs), "UnknownCA"),
        ("another fleet's", Some(&other), "BadCertificate"),
        ("expired", Some(&expired), "CertificateExpired"),
    ] {
        let refusal = ask(careless(&address, own, &authority).await).await.expect_err(who);
        assert!(refusal.contains(why), "{who}: {refusal}");
    }
    ask(careless(&address, Some(&authority.member()), &authority).await).await.unwrap();
}

#[tokio::test]
async fn a_client_refuses_a_server_that_is_not_of_its_fleet() {
    let (authority, stranger) = (authority("one"), authority("two"));
    let ours = Identity::new(&authority.member()).unwrap();
    let theirs = trusting(&stranger.member(), &[&authority, &stranger]);
    let other = authority.issue(&["chat.other.fleet.shoal.internal"], 2999);
    for (who, material, why) in
        [("another authority's", theirs, "UnknownIssuer"), ("another fleet's", other, "not valid for name")]
    {
        let address = server(&Identity::new(&material).unwrap()).await;
        let refusal = connect(&ours, &address).await.expect_err(who).to_string();
        assert!(refusal.contains(why), "{who}: {refusal}");
    }
}

#[tokio::test]
async fn a_peer_without_tls_gets_no_answer() {
    let address = server(&Identity::new(&authority("one").member()).unwrap()).await;
    let mut plain = TcpStream::connect(&address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(SOON, plain.read_to_end(&mut answer)).await.expect("it is closed");
    assert!(!answer.starts_with(b"\0"), "no HTTP/2 frame: {answer:?}");
}

#[tokio::test]
async fn who_connects_and_says_nothing_keeps_nobody_else_out() {
    let authority = authority("one");
    let identity = Identity::new(&authority.member()).unwrap();
    let address = server(&identity).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(&address).await.unwrap());
    }
    ask(connect(&identity, &address).await).await.unwrap();
}

#[tokio::test]
async fn an_authority_is_exchanged_step_by_step_while_a_connection_goes_on() {
    let (old, new) = (authority("old"), authority("new"));
    let (before, after) = (old.member(), new.member());
    let (server_side, client) = (Identity::new(&before).unwrap(), Identity::new(&before).unwrap());
    let address = server(&server_side).await;
    let mut open = connect(&client, &address).await.unwrap();
    let first = peer(&open);
    // The bundle first, then one side's certificate, then the other's, then the old authority goes.
    let both = [&old, &new];
    for (side, material) in [
        (&server_side, trusting(&before, &both)),
        (&client, trusting(&before, &both)),
        (&server_side, trusting(&after, &both)),
        (&client, trusting(&after, &both)),
        (&server_side, after.clone()),
        (&client, after.clone()),
    ] {
        side.replace(&material).unwrap();
        ask(connect(&client, &address).await).await.unwrap();
        open.write_all(b"x").await.unwrap();
        timeout(SOON, open.read_exact(&mut [0])).await.expect("an answer").unwrap();
    }
    assert_ne!(peer(&connect(&client, &address).await.unwrap()), first);
    // Who slept through all of it is a stranger.
    let late = Identity::new(&before).unwrap();
    assert!(connect(&late, &address).await.is_err());
}

#[test]
fn what_peers_would_refuse_is_not_taken_into_use() {
    let (authority, stranger) = (authority("one"), authority("two"));
    let good = authority.member();
    let identity = Identity::new(&good).unwrap();
    let with = |change: fn(&mut Material, &Material)| {
        let (mut changed, another) = (good.clone(), authority.member());
        change(&mut changed, &another);
        changed
    };
    for (material, why) in [
        (with(|m, other| m.key.clone_from(&other.key)), "KeyMismatch"),
        (
            with(|m, _| m.certificate.clear()),
            "tls.crt is no PEM file that can be used: it has no certificate",
        ),
        (with(|m, _| m.authorities.clear()), "ca.crt is no PEM file"),
        (with(|m, _| m.key = b"secret".to_vec()), "tls.key is no PEM file"),
        (with(|m, _| m.authorities = m.authorities.repeat(17)), "more than 16 certificates"),
        (trusting(&good, &[&stranger]), "UnknownIssuer"),
        (authority.issue(&[FLEET], 2021), "expired"),
        (authority.issue(&[FLEET, "another"], 2999), "one DNS name"),
        (authority.issue(&[], 2999), "one DNS name"),
    ] {
        let error = identity.replace(&material).expect_err(why);
        assert!(error.to_string().contains(why), "{why}: {error}");
        assert_eq!(error.class(), Class::Invalid);
    }
    assert_eq!(format!("{good:?}"), "Material { .. }");
}

/// As the kubelet does it: a folder of files, and a link to it that is exchanged.
fn mount(volume: &Path, version: &str, material: &Material) {
    let folder = volume.join(version);
    std::fs::create_dir(&folder).unwrap();
    for (name, content) in
        [("ca.crt", &material.authorities), ("tls.crt", &material.certificate), ("tls.key", &material.key)]
    {
        std::fs::write(folder.join(name), content).unwrap();
        let link = volume.join(name);
        if !link.is_symlink() {
            std::os::unix::fs::symlink(Path::new("..data").join(name), link).unwrap();
        }
    }
    std::os::unix::fs::symlink(version, volume.join("..new")).unwrap();
    std::fs::rename(volume.join("..new"), volume.join("..data")).unwrap();
}

#[tokio::test]
async fn a_folder_is_followed_and_a_broken_one_changes_nothing() {
    let authority = authority("one");
    let volume = tempfile::tempdir().unwrap();
    let missing = Identity::load(volume.path()).expect_err("nothing there");
    assert!(matches!(missing, TlsError::Read { .. }) && missing.class() == Class::Transient, "{missing}");
    mount(volume.path(), "1", &authority.member());
    let identity = Identity::load(volume.path()).unwrap();
    let address = server(&identity).await;
    let client = Identity::new(&authority.member()).unwrap();
    let first = peer(&connect(&client, &address).await.unwrap());
    let mut broken = authority.member();
    broken.key.truncate(20);
    mount(volume.path(), "2", &broken);
    mount(volume.path(), "3", &authority.member());
    let exchanged = async {
        while peer(&connect(&client, &address).await.unwrap()) == first {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(SOON, exchanged).await.expect("the new certificate is used");
}
