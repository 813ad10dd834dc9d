//! Owns how etcd and kube-apiserver are started: their flags, their ports, and
//! when they count as ready. Their life after that is the control plane's.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result};

use super::access::{ADMIN_TOKEN, Access};
use super::pki::Pki;
use super::{Options, Process, ProcessSpec, Programs, http};

/// Free ports are found by asking the kernel and letting go again, so another process may take
/// one in between. That is rare; this many times in a row it is something else.
pub(crate) const PORT_TRIES: u32 = 5;

/// Whether a program ended because somebody else took its port. Go and Rust say it in the same words, but for a capital.
pub(crate) fn port_taken(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("ddress already in use")
}

/// etcd listens on sockets in the plane's folder: no port to race for, and nobody else's store.
/// The names are relative because a socket's path may not be longer than 107 bytes.
pub(super) fn etcd_spec(programs: &Programs, folder: &Path) -> ProcessSpec {
    ProcessSpec::new("etcd", programs.etcd()).folder(folder).args([
        "--data-dir=etcd",
        // What it holds is gone with the process, so nothing has to reach the disk.
        "--unsafe-no-fsync",
        "--listen-client-urls=unix://etcd.sock:0",
        "--advertise-client-urls=unix://etcd.sock:0",
        "--listen-peer-urls=unix://etcd-peer.sock:0",
        "--log-level=warn",
    ])
}

pub(super) async fn start_apiserver(
    options: &Options,
    programs: &Programs,
    folder: &Path,
    pki: &Pki,
) -> Result<(Process, Access)> {
    let tokens = folder.join("tokens.csv");
    fs::write(&tokens, format!("{ADMIN_TOKEN},admin,admin,system:masters\n"))?;
    for _ in 1..PORT_TRIES {
        match try_apiserver(options, programs, folder, pki).await {
            Err(error) if port_taken(&error) => {}
            other => return other,
        }
    }
    try_apiserver(options, programs, folder, pki).await
}

async fn try_apiserver(options: &Options, programs: &Programs, folder: &Path, pki: &Pki) -> Result<(Process, Access)> {
    let access = Access {
        server: format!("https://127.0.0.1:{}", free_port()?),
        authority_path: pki.authority_path.clone(),
        authority_der: pki.authority_der.clone(),
    };
    let spec = apiserver_spec(options, programs, folder, pki, &access.server);
    let mut apiserver = Process::spawn(spec, folder)?;
    let ready = http::Getter::trusting(&format!("{}/readyz", access.server), &pki.authority_der)?;
    apiserver.wait_for_ok(&ready, options.ready_within).await?;
    Ok((apiserver, access))
}

fn apiserver_spec(options: &Options, programs: &Programs, folder: &Path, pki: &Pki, server: &str) -> ProcessSpec {
    let port = server.rsplit(':').next().unwrap_or_default();
    let key = pki.service_account_key_path.display();
    let spec = ProcessSpec::new("kube-apiserver", programs.kube_apiserver()).folder(folder).args([
        "--etcd-servers=unix://etcd.sock:0".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        // Without these two it looks for an outside address of this machine, and there may be none.
        "--advertise-address=127.0.0.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--tls-cert-file={}", pki.server_certificate_path.display()),
        format!("--tls-private-key-file={}", pki.server_key_path.display()),
        "--token-auth-file=tokens.csv".to_owned(),
        format!("--service-account-key-file={}", pki.service_account_public_key_path.display()),
        format!("--service-account-signing-key-file={key}"),
        format!("--service-account-issuer={server}"),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--authorization-mode=RBAC,Node".to_owned(),
        // The agent's DaemonSet is not privileged, but people try things on the live cluster.
        "--allow-privileged=true".to_owned(),
        // A pod then needs no account and gets no token mounted. Accounts and tokens work all the same.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ]);
    spec.args(&options.apiserver_args)
}

/// A loopback port that was free a moment ago. Another process may take it before you bind it, so
/// try again with a new one when the program says that its address is in use.
///
/// # Errors
/// The kernel has none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}
