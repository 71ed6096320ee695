//! TLS by rustls: files to configurations, and errors that name the file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
pub use rustls::{ClientConfig, ServerConfig};
use rustls::{ConfigBuilder, RootCertStore, WantsVerifier};

/// A certificate and its key, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and those between it and the authority, in this order.
    pub certificate: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
}

/// What a TLS server needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// Who it is.
    pub identity: Identity,
    /// Authorities one of which must have signed a client's certificate; without them, clients
    /// need none. This is mutual TLS.
    pub clients: Option<PathBuf>,
}

/// What a TLS client needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Authorities to trust instead of the system's.
    pub roots: Option<PathBuf>,
    /// Who it is, where the server asks.
    pub identity: Option<Identity>,
}

/// Why there is no TLS.
#[derive(Debug)]
pub struct TlsError {
    file: Option<PathBuf>,
    what: String,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl TlsError {
    fn of(file: &Path, what: &str) -> Self {
        Self { file: Some(file.to_owned()), what: what.to_owned(), cause: None }
    }

    fn because(self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{} {}", file.display(), self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl ServerTls {
    /// Reads the files. `protocols` are those of ALPN that it speaks, such as `http/1.1`; it blocks
    /// on the disk.
    ///
    /// Without protocols, clients get no tickets to come back with: who only sends never reads them,
    /// and a connection that is closed with something unread is reset, which takes with it what was
    /// sent last.
    ///
    /// # Errors
    ///
    /// Names the file and what is wrong with it.
    pub fn load(&self, protocols: &[&str]) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(unusable)?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let roots = Arc::new(roots(file)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let refused =
                    |error| TlsError::of(file, "holds no authority for clients").because(error);
                builder.with_client_cert_verifier(verifier.build().map_err(refused)?)
            }
        };
        let (chain, key) = self.identity.load()?;
        let config = builder.with_single_cert(chain, key);
        let mut config = config.map_err(|error| self.identity.refused(error))?;
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        if protocols.is_empty() {
            config.send_tls13_tickets = 0;
        }
        Ok(Arc::new(config))
    }
}

impl ClientTls {
    /// Reads the files, or the system's authorities; it blocks on the disk. `protocols` as
    /// [`ServerTls::load`].
    ///
    /// # Errors
    ///
    /// Names the file and what is wrong with it.
    pub fn load(&self, protocols: &[&str]) -> Result<Arc<ClientConfig>, TlsError> {
        let builder = client_builder()?.with_root_certificates(self.authorities()?);
        self.finish(builder, protocols)
    }

    /// Reads the files, but for the authorities: whom to believe is the verifier's to say.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_with(
        &self,
        verifier: Arc<dyn ServerCertVerifier>,
        protocols: &[&str],
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let builder = client_builder()?.dangerous().with_custom_certificate_verifier(verifier);
        self.finish(builder, protocols)
    }

    /// Reads the authorities that are trusted: the file's, or the system's.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn authorities(&self) -> Result<RootCertStore, TlsError> {
        match &self.roots {
            Some(file) => roots(file),
            None => system_roots(),
        }
    }

    fn finish(
        &self,
        builder: ConfigBuilder<ClientConfig, WantsClientCert>,
        protocols: &[&str],
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = identity.load()?;
                let config = builder.with_client_auth_cert(chain, key);
                config.map_err(|error| identity.refused(error))?
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }
}

fn client_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider());
    builder.with_safe_default_protocol_versions().map_err(unusable)
}

impl Identity {
    fn load(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| match error {
            pem::Error::NoItemsFound => {
                TlsError::of(&self.key, "holds no private key: one in PEM is needed, not encrypted")
            }
            error => unreadable(&self.key, error),
        })?;
        Ok((chain, key))
    }

    fn refused(&self, error: rustls::Error) -> TlsError {
        let what = format!("does not go with the key {}", self.key.display());
        TlsError::of(&self.certificate, &what).because(error)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = read.map_err(|error| unreadable(file, error))?;
    if chain.is_empty() {
        return Err(TlsError::of(file, "holds no certificate: one in PEM is needed"));
    }
    Ok(chain)
}

fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        let added = roots.add(certificate);
        added.map_err(|error| {
            TlsError::of(file, "holds a certificate that can't be trusted").because(error)
        })?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems have a few that are malformed; the others do.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let what =
            "the system has no certificates of authorities: install ca-certificates, or name \
                    a file of them"
                .to_owned();
        let cause = found.errors.into_iter().next().map(Into::into);
        return Err(TlsError { file: None, what, cause });
    }
    Ok(roots)
}

fn unreadable(file: &Path, error: pem::Error) -> TlsError {
    match error {
        pem::Error::Io(error) => {
            let what = match error.kind() {
                io::ErrorKind::NotFound => "is not there",
                io::ErrorKind::PermissionDenied => "may not be read by this user",
                _ => "can't be read",
            };
            TlsError::of(file, what).because(error)
        }
        error => TlsError::of(file, "is no PEM file").because(error.to_string()),
    }
}

fn unusable(error: rustls::Error) -> TlsError {
    TlsError { file: None, what: "TLS can't be used".to_owned(), cause: Some(error.into()) }
}
