//! Certificates of a fleet in a folder, exchanged as a kubelet exchanges a mounted Secret.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use shoal_wire::tls::Material;

/// Who signs certificates.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        Ok(Self { pem: params.self_signed(&key)?.pem(), issuer: Issuer::new(params, key) })
    }

    /// A certificate for a fleet of that name, which trusts this authority alone.
    pub fn issue(&self, fleet: &str) -> Result<Material> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([fleet.to_owned()])?.signed_by(&key, &self.issuer)?.pem();
        Ok(Material {
            authorities: self.pem.clone().into_bytes(),
            certificate: certificate.into_bytes(),
            key: key.serialize_pem().into_bytes(),
        })
    }
}

/// The same certificate, trusting these.
pub fn trusting(material: &Material, authorities: &[&Authority]) -> Material {
    let all: String = authorities.iter().map(|authority| authority.pem.as_str()).collect();
    Material { authorities: all.into_bytes(), ..material.clone() }
}

/// A mounted folder of files behind one link.
#[derive(Debug)]
pub struct Volume {
    folder: PathBuf,
    version: u32,
}

impl Volume {
    pub fn new(folder: &Path, material: &Material) -> Result<Self> {
        fs::create_dir(folder)?;
        for name in ["ca.crt", "tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), folder.join(name))?;
        }
        let mut volume = Self { folder: folder.to_owned(), version: 0 };
        volume.exchange(material)?;
        Ok(volume)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All files at once.
    pub fn exchange(&mut self, material: &Material) -> Result<()> {
        self.version += 1;
        let version = format!("..{}", self.version);
        let fresh = self.folder.join(&version);
        fs::create_dir(&fresh)?;
        let Material { authorities, certificate, key } = material;
        for (name, content) in [("ca.crt", authorities), ("tls.crt", certificate), ("tls.key", key)] {
            fs::write(fresh.join(name), content)?;
        }
        let link = self.folder.join("..data_tmp");
        symlink(version, &link)?;
        Ok(fs::rename(link, self.folder.join("..data"))?)
    }
}
