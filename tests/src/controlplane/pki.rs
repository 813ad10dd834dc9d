//! Owns the keys of one control plane: an authority, one server certificate for
//! loopback, and the key that signs service account tokens. All are made anew for
//! every plane, so that no client can talk to the wrong one by accident.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// Where the files are, and the authority in the form that TLS clients take.
#[derive(Debug)]
pub(super) struct Pki {
    pub(super) authority_path: PathBuf,
    pub(super) authority_der: Vec<u8>,
    pub(super) server_certificate_path: PathBuf,
    pub(super) server_key_path: PathBuf,
    pub(super) service_account_key_path: PathBuf,
    pub(super) service_account_public_key_path: PathBuf,
}

/// Makes all keys and writes them into the folder.
pub(super) fn write(folder: &Path) -> Result<Pki> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "berth-tests");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let mut params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "loopback");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let server_key = KeyPair::generate()?;
    let server = params.signed_by(&server_key, &authority)?;

    let service_account_key = KeyPair::generate()?;
    let put = |name: &str, text: &str| -> Result<PathBuf> {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    };
    Ok(Pki {
        authority_path: put("authority.crt", &authority.pem())?,
        authority_der: authority.der().to_vec(),
        server_certificate_path: put("server.crt", &server.pem())?,
        server_key_path: put("server.key", &server_key.serialize_pem())?,
        service_account_key_path: put("service-accounts.key", &service_account_key.serialize_pem())?,
        service_account_public_key_path: put("service-accounts.pub", &service_account_key.public_key_pem())?,
    })
}
