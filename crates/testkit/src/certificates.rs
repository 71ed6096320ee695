//! Certificates for tests: authorities of their own, what these sign, and what is wrong with some.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// An authority that signs certificates. Everything it makes is a file of its folder.
pub struct Authority {
    folder: PathBuf,
    file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// `NAME.pem`.
    pub certificate: PathBuf,
    /// `NAME.key`.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority, whose own certificate is `NAME.pem` in a folder.
    ///
    /// # Panics
    ///
    /// Where no file can be written there.
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = key();
        let own = params.self_signed(&key).unwrap_or_else(|error| panic!("no authority: {error}"));
        let file = folder.join(format!("{name}.pem"));
        write(&file, &own.pem());
        Self { folder: folder.to_owned(), file, issuer: Issuer::new(params, key) }
    }

    /// Its own certificate, for those who trust it.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// A certificate for this machine (`localhost`, `127.0.0.1`, `::1`), as a server and a client.
    ///
    /// # Panics
    ///
    /// Where no file can be written.
    pub fn issue(&self, name: &str) -> Issued {
        self.sign(name, params(name))
    }

    /// One that was good until the end of the last century.
    ///
    /// # Panics
    ///
    /// As [`issue`](Self::issue).
    pub fn issue_expired(&self, name: &str) -> Issued {
        let mut params = params(name);
        params.not_after = date_time_ymd(2000, 12, 31);
        self.sign(name, params)
    }

    /// One for another host only.
    ///
    /// # Panics
    ///
    /// As [`issue`](Self::issue), and where the host is no name.
    pub fn issue_for(&self, name: &str, host: &str) -> Issued {
        self.sign(name, params_for(name, vec![host.to_owned()]))
    }

    fn sign(&self, name: &str, mut params: CertificateParams) -> Issued {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        params.extended_key_usages = vec![ServerAuth, ClientAuth];
        let key = key();
        let signed = params.signed_by(&key, &self.issuer);
        let signed = signed.unwrap_or_else(|error| panic!("no certificate: {error}"));
        let issued = Issued {
            certificate: self.folder.join(format!("{name}.pem")),
            key: self.folder.join(format!("{name}.key")),
        };
        write(&issued.certificate, &signed.pem());
        write(&issued.key, &key.serialize_pem());
        issued
    }
}

fn params(name: &str) -> CertificateParams {
    params_for(name, ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec())
}

fn params_for(name: &str, hosts: Vec<String>) -> CertificateParams {
    let params = CertificateParams::new(hosts);
    let mut params = params.unwrap_or_else(|error| panic!("no names: {error}"));
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap_or_else(|error| panic!("no key: {error}"))
}

fn write(file: &Path, pem: &str) {
    let written = fs::write(file, pem);
    written.unwrap_or_else(|error| panic!("can't write {}: {error}", file.display()));
}
