//! A new key and its self-signed certificate.

use std::net::IpAddr;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};

/// A key and a certificate in PEM.
pub struct Generated {
    /// PKCS #8.
    pub key_pem: String,
    /// X.509.
    pub certificate_pem: String,
}

/// Makes an ECDSA P-256 key and a certificate for `hostname`, `localhost` and `addresses`.
///
/// The certificate is what people pin, so it has to outlive every address and the wrong clock of
/// a first boot: its validity is fixed and long. It is a leaf, not an authority; whoever trusts
/// it trusts this one host.
pub fn generate(hostname: &str, addresses: &[IpAddr]) -> Result<Generated, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = false;
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Lodge");
    // RFC 5280 allows 64 characters.
    name.push(
        DnType::CommonName,
        hostname.chars().take(64).collect::<String>(),
    );
    params.distinguished_name = name;
    params.subject_alt_names = subject_names(hostname, addresses);
    let certificate = params.self_signed(&key)?;
    Ok(Generated {
        key_pem: key.serialize_pem(),
        certificate_pem: certificate.pem(),
    })
}

fn subject_names(hostname: &str, addresses: &[IpAddr]) -> Vec<SanType> {
    let mut names: Vec<SanType> = Vec::new();
    for name in [hostname, "localhost"] {
        match name.try_into() {
            Ok(name) => names.push(SanType::DnsName(name)),
            Err(_) => tracing::warn!(name, "the host's name does not fit into a certificate"),
        }
    }
    let loopback = [
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from([0u16, 0, 0, 0, 0, 0, 0, 1]),
    ];
    for address in loopback.into_iter().chain(addresses.iter().copied()) {
        let name = SanType::IpAddress(address);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
