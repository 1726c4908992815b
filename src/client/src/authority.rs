//! Certificate authorities that a host trusts beside the public ones.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::Fingerprint;

/// Longest certificate, as PEM, in bytes.
const MOST_BYTES: usize = 16 << 10;

/// The certificate of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority(CertificateDer<'static>);

impl Authority {
    /// Reads the one certificate that there is in a PEM file.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn from_pem(pem: &str) -> Result<Self, String> {
        if pem.len() > MOST_BYTES {
            return Err(format!(
                "{} bytes; at most {MOST_BYTES} are read",
                pem.len()
            ));
        }
        let mut certificates = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            certificates.push(certificate.map_err(|error| format!("not PEM: {error}"))?);
        }
        let [certificate] = <[_; 1]>::try_from(certificates).map_err(|found| {
            let count = found.len();
            format!("{count} certificates in it; give the authority's own, from BEGIN to END CERTIFICATE")
        })?;
        let authority = Self(certificate);
        authority
            .add_to(&mut RootCertStore::empty())
            .map_err(|error| format!("not a certificate: {error}"))?;
        Ok(authority)
    }

    /// What it is known by.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.0)
    }

    pub(crate) fn add_to(&self, roots: &mut RootCertStore) -> Result<(), rustls::Error> {
        roots.add(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem() -> String {
        let made = rcgen::generate_simple_self_signed(vec!["lab".to_owned()]).unwrap();
        made.cert.pem()
    }

    #[test]
    fn one_certificate_is_read() {
        let pem = pem();
        let authority = Authority::from_pem(&format!("Lab\n{pem}\n")).unwrap();
        assert_eq!(
            authority.fingerprint(),
            Authority::from_pem(&pem).unwrap().fingerprint()
        );
        let wrong = |text: &str| Authority::from_pem(text).unwrap_err();
        assert!(wrong("").starts_with("0 certificates"));
        assert!(wrong(&[pem.as_str(), &pem].concat()).starts_with("2 certificates"));
        assert!(wrong(&pem.replace("-----END", "----")).starts_with("not PEM"));
        let key = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(wrong(key).starts_with("not a certificate"));
        assert!(wrong(&pem.repeat(100)).contains("at most"));
    }
}
