//! Where schedulers take streams, and what an agent shows them. No connection is made here.

use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

/// Largest file of certificates or of a token.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// `https://NAME:PORT`, or `http://` where plain text is bearable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    is_tls: bool,
    host: String,
    port: u16,
}

impl Endpoint {
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "https://NAME:PORT is right, or http://127.0.0.1:PORT on one machine".to_owned();
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        let (host, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':').ok_or_else(form)?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let is_name = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
        if host.is_empty() || !host.chars().all(is_name) {
            return Err(form());
        }
        let port = port.parse().map_err(|_| form())?;
        match scheme {
            "https" => Ok(Self { is_tls: true, host: host.to_owned(), port }),
            // A report says which GPUs may get pods, so nobody on the way may change it.
            "http" if ["127.0.0.1", "::1", "localhost"].contains(&host) => {
                Ok(Self { is_tls: false, host: host.to_owned(), port })
            }
            "http" => Err(format!("{host} is not this machine, and plain text is for loopback only: {}", form())),
            _ => Err(form()),
        }
    }
}

/// What proves the schedulers to the agent, and the agent to them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credentials {
    /// PEM certificates of the authority.
    pub(crate) authority: Option<PathBuf>,
    /// The token's file.
    pub(crate) token: Option<PathBuf>,
}

impl Credentials {
    /// Whether they are of the kind that the endpoint and its addresses need. Their files may come later, as Secrets do.
    ///
    /// # Errors
    /// An option is missing, or plain text would leave the machine.
    pub(crate) fn check(&self, endpoint: &Endpoint, addresses: &[SocketAddr]) -> Result<()> {
        let abroad = addresses.iter().find(|address| !address.ip().is_loopback());
        if let Some(abroad) = abroad.filter(|_| !endpoint.is_tls()) {
            bail!("--reports-addresses: {abroad} is not this machine, and plain text is for loopback only");
        }
        if endpoint.is_tls() {
            ensure!(self.authority.is_some(), "--reports-endpoint {endpoint} needs --reports-ca");
            ensure!(self.token.is_some(), "--reports-endpoint {endpoint} needs --reports-token-file");
        }
        Ok(())
    }
}

/// The text of a small file.
pub(super) fn text_of(path: &Path) -> Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_scheme_a_name_and_a_port() {
        for good in ["https://berth-reports.berth-system.svc:8890", "http://127.0.0.1:8890", "http://localhost:1"] {
            assert_eq!(good.parse::<Endpoint>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "berth:8890",
            "https://berth",
            "https://:8890",
            "grpc://a:1",
            "https://a:99999",
            "https://a b:1",
            "https://a/b:1",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn plain_text_leaves_the_machine_by_no_name() {
        for bad in ["http://10.0.0.1:8890", "http://berth-reports:8890", "http://0.0.0.0:8890"] {
            let error = bad.parse::<Endpoint>().unwrap_err();
            assert!(error.contains("plain text is for loopback only"), "{error}");
        }
    }

    #[test]
    fn plain_text_leaves_the_machine_by_no_address() {
        let endpoint: Endpoint = "http://localhost:1".parse().unwrap();
        let check = |addresses: [&str; 2]| {
            Credentials::default().check(&endpoint, &addresses.map(|address| address.parse().unwrap()))
        };
        assert!(check(["127.0.0.1:1", "[::1]:1"]).is_ok());
        let error = check(["127.0.0.1:1", "10.0.0.1:1"]).unwrap_err().to_string();
        assert!(error.contains("10.0.0.1:1 is not this machine"), "{error}");
    }

    #[test]
    fn tls_without_an_authority_or_a_token_is_refused_at_start() {
        let endpoint: Endpoint = "https://a:1".parse().unwrap();
        let error = Credentials::default().check(&endpoint, &[]).unwrap_err().to_string();
        assert!(error.ends_with("needs --reports-ca"), "{error}");
        let some = Credentials { authority: Some("ca".into()), token: None };
        assert!(some.check(&endpoint, &[]).unwrap_err().to_string().ends_with("needs --reports-token-file"));
        assert!(Credentials::default().check(&"http://localhost:1".parse().unwrap(), &[]).is_ok());
    }
}
