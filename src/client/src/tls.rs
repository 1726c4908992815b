//! TLS with a pinned certificate instead of a certificate authority; and with the public authorities, for servers that are no
//! hosts of ours.
//!
//! A host makes its own certificate at first boot and shows the fingerprint on
//! its console. Whoever adds the host as a remote compares it once; from then
//! on only that certificate is accepted, whatever name or address the host has.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_rustls::TlsConnector;

use crate::{Authority, Fingerprint};

/// The only protocol that is offered (RFC 7301).
const HTTP_1_1: &[u8] = b"http/1.1";

/// Accepts one certificate and remembers what it was shown.
#[derive(Debug)]
pub(crate) struct Pin {
    expected: Option<Fingerprint>,
    seen: OnceLock<Fingerprint>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pin {
    /// What the last handshake showed.
    pub(crate) fn seen(&self) -> Option<Fingerprint> {
        self.seen.get().copied()
    }
}

/// A TLS configuration that accepts only `expected`; with `None` any
/// certificate, which is for reading its fingerprint and nothing else.
pub(crate) fn configuration(expected: Option<Fingerprint>) -> (Arc<ClientConfig>, Arc<Pin>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let pin = Arc::new(Pin {
        expected,
        seen: OnceLock::new(),
        algorithms: algorithms(&provider),
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(pin.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    (Arc::new(config), pin)
}

/// What the public authorities vouch for.
pub(crate) fn public() -> TlsConnector {
    public_and(&[])
}

/// What the public authorities vouch for, or these.
pub(crate) fn public_and(authorities: &[Authority]) -> TlsConnector {
    let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    for authority in authorities {
        // It was taken when it was read.
        let _ = authority.add_to(&mut roots);
    }
    vouched_for_by(roots)
}

/// What these authorities vouch for.
pub(crate) fn vouched_for_by(roots: RootCertStore) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    TlsConnector::from(Arc::new(config))
}

fn algorithms(provider: &CryptoProvider) -> WebPkiSupportedAlgorithms {
    provider.signature_verification_algorithms
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = Fingerprint::of(end_entity);
        let _ = self.seen.set(found);
        match self.expected {
            Some(expected) if expected != found => Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            )),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
