//! Keys and certificates of a lab's API server, made anew for each.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Files in PEM form.
pub(super) struct Files {
    /// Certificate that clients trust.
    pub(super) authority: PathBuf,
    /// The server's certificate.
    pub(super) certificate: PathBuf,
    /// The server's private key.
    pub(super) key: PathBuf,
    /// Private key that signs tokens of service accounts.
    pub(super) token_key: PathBuf,
    /// Its public key.
    pub(super) token_public_key: PathBuf,
}

impl Files {
    /// Makes all of them in `dir`; the server is known by `names` (addresses or DNS names).
    pub(super) fn make(dir: &Path, names: &[String]) -> Result<Self> {
        let files = Self {
            authority: dir.join("ca.crt"),
            certificate: dir.join("server.crt"),
            key: dir.join("server.key"),
            token_key: dir.join("tokens.key"),
            token_public_key: dir.join("tokens.pub"),
        };
        let authority_key = KeyPair::generate().context("make a key")?;
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        authority.distinguished_name.push(DnType::CommonName, "kproxy-lab");
        let certificate = authority.self_signed(&authority_key).context("sign a certificate")?;
        write(&files.authority, &certificate.pem())?;

        let server_key = KeyPair::generate().context("make a key")?;
        let mut server = CertificateParams::new(names).context("name the API server")?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        let issuer = Issuer::new(authority, authority_key);
        let certificate = server.signed_by(&server_key, &issuer).context("sign a certificate")?;
        write(&files.certificate, &certificate.pem())?;
        write(&files.key, &server_key.serialize_pem())?;

        let tokens = KeyPair::generate().context("make a key")?;
        write(&files.token_key, &tokens.serialize_pem())?;
        write(&files.token_public_key, &tokens.public_key_pem())?;
        Ok(files)
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}
