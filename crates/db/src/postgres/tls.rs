//! TLS as libpq's `sslmode` means it.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsFault, SignatureScheme,
};
use tidegate_net::tls::{ClientTls, Identity};
use tokio::task::spawn_blocking;

use super::config::{Config, SslMode};
use crate::{Error, Result};

/// What a configuration asks of TLS; none where it wants none.
pub(super) async fn client(config: &Config) -> Result<Option<Arc<ClientConfig>>> {
    // As libpq: who gives an authority wants it asked.
    let mode = match config.ssl_mode {
        SslMode::Require if config.ssl_roots.is_some() => SslMode::VerifyCa,
        mode => mode,
    };
    if mode == SslMode::Disable {
        return Ok(None);
    }
    let identity =
        config.ssl_identity.clone().map(|(certificate, key)| Identity { certificate, key });
    let tls = ClientTls { roots: config.ssl_roots.clone(), identity };
    let loaded = spawn_blocking(move || load(&tls, mode)).await;
    let loaded = loaded.map_err(|error| Error::connection("stopped").because(error))?;
    loaded.map(Some).map_err(|error| {
        Error::refused("url: sslrootcert, sslcert or sslkey can't be used").because(error)
    })
}

fn load(
    tls: &ClientTls,
    mode: SslMode,
) -> Result<Arc<ClientConfig>, Box<dyn std::error::Error + Send + Sync>> {
    if mode == SslMode::VerifyFull {
        return Ok(tls.load(&[])?);
    }
    let provider = Arc::new(ring::default_provider());
    let chain = match mode {
        SslMode::VerifyCa => {
            let roots = Arc::new(tls.authorities()?);
            Some(
                WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .build()?,
            )
        }
        _ => None,
    };
    Ok(tls.load_with(Arc::new(Lenient { chain, provider }), &[])?)
}

/// A server may be anybody, or anybody whom an authority knows: what `require` and `verify-ca` mean.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsFault> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is looked at last.
            Err(TlsFault::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsFault> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsFault> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
