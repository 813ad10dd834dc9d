//! `berth certs`: an authority and a certificate of the report port, for clusters without cert-manager. Talks to no cluster: it writes
//! files or prints manifests.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::args::CertsArgs;
use crate::document::read_bounded;
use crate::run::Outcome;

/// Service that the manifests make for reports.
const SERVICE: &str = "berth-reports";
/// Where it is, unless the command line says otherwise.
const NAMESPACE: &str = "berth-system";
/// An authority outlives many certificates, so that agents need no new one often.
const AUTHORITY_DAYS: u64 = 3650;
/// Clocks of nodes may be behind.
const SKEW: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Largest file of an authority.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What was made, in PEM.
struct Made {
    authority: String,
    /// Absent where the authority was there before.
    authority_key: Option<String>,
    certificate: String,
    key: String,
}

/// Runs the command.
///
/// # Errors
/// A name is none, a file is there already, or cannot be read or written.
pub(crate) fn run(args: &CertsArgs, namespace: Option<&str>) -> Result<Outcome> {
    let namespace = namespace.unwrap_or(NAMESPACE);
    let made = make(args, &names(namespace, &args.names))?;
    if let Some(folder) = &args.out {
        return write(folder, &made, namespace);
    }
    let notes = match made.authority_key {
        Some(_) => vec![
            "the authority's key is in no manifest and now gone; with --out DIR it is kept, and --authority DIR signs \
             the next certificate without new trust in every agent"
                .to_owned(),
        ],
        None => Vec::new(),
    };
    Ok(Outcome::Noted { text: manifests(&made, namespace), notes, is_finding: false })
}

/// Names that agents may use for the service, and those that were asked for.
fn names(namespace: &str, more: &[String]) -> Vec<String> {
    let service = [
        SERVICE.to_owned(),
        format!("{SERVICE}.{namespace}"),
        format!("{SERVICE}.{namespace}.svc"),
        format!("{SERVICE}.{namespace}.svc.cluster.local"),
    ];
    service.into_iter().chain(more.iter().cloned()).collect()
}

fn make(args: &CertsArgs, names: &[String]) -> Result<Made> {
    let key = KeyPair::generate().context("make a key")?;
    let mut params = CertificateParams::new(names).context("--name: a DNS name or an IP address is right")?;
    params.distinguished_name.push(DnType::CommonName, SERVICE);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    lasting(&mut params, args.days);
    let key_pem = key.serialize_pem();
    match &args.authority {
        Some(folder) => {
            let read = |file: &str| {
                let path = folder.join(file);
                read_bounded(&path, FILE_BYTES_MAX).with_context(|| format!("cannot read {}", path.display()))
            };
            let (authority, authority_key) = (read("ca.crt")?, read("ca.key")?);
            let signer = KeyPair::from_pem(&authority_key).context("ca.key is no private key in PEM")?;
            let issuer = Issuer::from_ca_cert_pem(&authority, signer).context("ca.crt is no certificate in PEM")?;
            let certificate = params.signed_by(&key, &issuer).context("sign")?.pem();
            Ok(Made { authority, authority_key: None, certificate, key: key_pem })
        }
        None => {
            let issuer = authority()?;
            let certificate = params.signed_by(&key, &issuer).context("sign")?.pem();
            let authority_key = Some(issuer.key().serialize_pem());
            Ok(Made { authority: issuer.pem(), authority_key, certificate, key: key_pem })
        }
    }
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "berth");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    lasting(&mut params, AUTHORITY_DAYS);
    let key = KeyPair::generate().context("make a key")?;
    CertifiedIssuer::self_signed(params, key).context("make the authority")
}

fn lasting(params: &mut CertificateParams, days: u64) {
    let now = SystemTime::now();
    let days = u32::try_from(days).unwrap_or(u32::MAX);
    params.not_before = (now - SKEW).into();
    params.not_after = (now + DAY.saturating_mul(days)).into();
}

/// Secret and ConfigMap as the manifests name them.
fn manifests(made: &Made, namespace: &str) -> String {
    let block = |pem: &str| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!(
        "# For berth-scheduler alone: who has the key can pose as the scheduler towards every agent.\n\
         apiVersion: v1\nkind: Secret\nmetadata:\n  name: berth-reports-tls\n  namespace: {namespace}\n\
         type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}---\n\
         # For the agents: whose certificate they believe.\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: berth-reports-ca\n  namespace: {namespace}\n\
         data:\n  ca.crt: |\n{}",
        block(&made.certificate),
        block(&made.key),
        block(&made.authority),
    )
}

/// Writes the files that are new. An authority that is there is never written over: every agent believes it.
fn write(folder: &Path, made: &Made, namespace: &str) -> Result<Outcome> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    if let Some(key) = &made.authority_key {
        if folder.join("ca.crt").exists() {
            let at = folder.display();
            bail!(
                "{at}/ca.crt is there and every agent believes it; --authority {at} signs the next certificate with it"
            );
        }
        put(folder, "ca.key", key)?;
        put(folder, "ca.crt", &made.authority)?;
    }
    put(folder, "tls.key", &made.key)?;
    put(folder, "tls.crt", &made.certificate)?;
    put(folder, "manifests.yaml", &manifests(made, namespace))?;
    let at = folder.display();
    Ok(Outcome::Text(format!(
        "tls.crt tls.key manifests.yaml are in {at}; next: kubectl apply -f {at}/manifests.yaml\n\
         Keep {at}/ca.key out of the cluster: `berth certs --authority {at} --out {at}` signs the next certificate with it.\n"
    )))
}

/// Writes one file that only its owner may read, under another name first, so that nobody reads half of it.
fn put(folder: &Path, file: &str, text: &str) -> Result<()> {
    let (path, fresh) = (folder.join(file), folder.join(format!(".{file}.new")));
    let cannot = || format!("cannot write {}", path.display());
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(cannot),
        _ => {}
    }
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).with_context(cannot)?;
    out.write_all(text.as_bytes()).with_context(cannot)?;
    std::fs::rename(&fresh, &path).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(out: Option<&Path>, authority: Option<&Path>) -> CertsArgs {
        let names = vec!["127.0.0.1".to_owned(), "schedulers.example".to_owned()];
        CertsArgs { out: out.map(Path::to_owned), authority: authority.map(Path::to_owned), names, days: 90 }
    }

    #[test]
    fn printed_manifests_are_the_two_objects_that_the_component_mounts() {
        let Outcome::Noted { text, notes, .. } = run(&args(None, None), Some("elsewhere")).unwrap() else { panic!() };
        assert_eq!(notes.len(), 1);
        let objects: Vec<serde_json::Value> =
            text.split("\n---\n").map(|o| serde_saphyr::from_str(o).unwrap()).collect();
        assert_eq!(
            (&objects[0]["kind"], &objects[0]["metadata"]["name"]),
            (&"Secret".into(), &"berth-reports-tls".into())
        );
        assert_eq!(objects[0]["metadata"]["namespace"], "elsewhere");
        assert_eq!(
            (&objects[1]["kind"], &objects[1]["metadata"]["name"]),
            (&"ConfigMap".into(), &"berth-reports-ca".into())
        );
        let pem = |value: &serde_json::Value| value.as_str().unwrap().starts_with("-----BEGIN ");
        assert!(pem(&objects[0]["stringData"]["tls.crt"]) && pem(&objects[0]["stringData"]["tls.key"]));
        assert!(pem(&objects[1]["data"]["ca.crt"]) && !text.contains("ca.key"));
    }

    #[test]
    fn the_next_certificate_is_signed_by_the_authority_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let file = |name: &str| std::fs::read_to_string(at.join(name)).unwrap();
        run(&args(Some(at), None), None).unwrap();
        let (authority, certificate) = (file("ca.crt"), file("tls.crt"));
        let error = run(&args(Some(at), None), None).unwrap_err().to_string();
        assert!(error.contains("--authority"), "{error}");
        assert_eq!(file("tls.crt"), certificate, "nothing was written");
        run(&args(Some(at), Some(at)), None).unwrap();
        assert_eq!(file("ca.crt"), authority);
        assert_ne!(file("tls.crt"), certificate);
    }

    #[test]
    fn keys_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        run(&args(Some(folder.path()), None), None).unwrap();
        for file in ["ca.key", "tls.key", "manifests.yaml"] {
            let mode = std::fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{file}");
        }
    }

    #[test]
    fn a_name_that_is_none_and_a_missing_authority_are_refused() {
        let mut bad = args(None, None);
        bad.names = vec!["näme".to_owned()];
        assert!(run(&bad, None).unwrap_err().to_string().contains("--name"));
        let folder = tempfile::tempdir().unwrap();
        let error = run(&args(None, Some(folder.path())), None).unwrap_err().to_string();
        assert!(error.contains("ca.crt"), "{error}");
    }
}
