//! Owns the paths of Berth's own programs: built by the same cargo, into the same
//! target folder and profile as the running test, once for every test process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};
use cargo_metadata::{Message, TargetKind};

/// The packages whose programs, and the one whose library, tests run.
const PACKAGES: [&str; 4] = ["berth-agent", "berth-scheduler", "berth-cli", "berth-fake-nvml"];

static BINARIES: OnceLock<Result<Binaries, String>> = OnceLock::new();

/// Paths of what was built.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The node agent.
    pub agent: PathBuf,
    /// The extender.
    pub scheduler: PathBuf,
    /// The CLI.
    pub cli: PathBuf,
    /// The fake `libnvidia-ml.so.1`, under the name that cargo gives it.
    pub fake_nvml: PathBuf,
}

/// Builds them on the first call of this process and says where they are. Blocks while it builds.
///
/// # Errors
/// They do not compile; the compiler's own words are on standard error.
pub fn binaries() -> Result<&'static Binaries> {
    BINARIES
        .get_or_init(|| build().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("build Berth's programs: {error}"))
}

fn build() -> Result<Binaries> {
    let (target, profile) = place(&std::env::current_exe()?)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--locked",
        "--lib",
        "--bins",
        "--message-format=json-render-diagnostics",
        "--manifest-path",
    ]);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    command.arg("--target-dir").arg(&target).args(["--profile", &profile]);
    for package in PACKAGES {
        command.args(["-p", package]);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("start cargo")?;
    if !output.status.success() {
        bail!("cargo build failed ({})", output.status);
    }
    let mut built = BTreeMap::new();
    for message in Message::parse_stream(output.stdout.as_slice()) {
        let Message::CompilerArtifact(artifact) = message? else {
            continue;
        };
        let library = artifact.target.kind.contains(&TargetKind::CDyLib);
        let shared = artifact.filenames.iter().find(|file| library && file.extension() == Some("so"));
        if let Some(file) = artifact.executable.as_ref().or(shared) {
            built.insert(artifact.target.name, file.as_std_path().to_owned());
        }
    }
    let mut take = |name: &str| built.remove(name).with_context(|| format!("cargo built no {name}"));
    Ok(Binaries {
        agent: take("berth-agent")?,
        scheduler: take("berth-scheduler")?,
        cli: take("berth")?,
        fake_nvml: take("berth_fake_nvml")?,
    })
}

/// The target folder and the profile, from `<target>/<profile>[/deps|/examples]/<program>`.
fn place(program: &Path) -> Result<(PathBuf, String)> {
    let mut folder = program.parent();
    if folder.is_some_and(|folder| folder.ends_with("deps") || folder.ends_with("examples")) {
        folder = folder.and_then(Path::parent);
    }
    let name = folder.and_then(Path::file_name).and_then(|name| name.to_str());
    match (folder.and_then(Path::parent), name) {
        (Some(target), Some("debug")) => Ok((target.to_owned(), "dev".to_owned())),
        (Some(target), Some(profile)) => Ok((target.to_owned(), profile.to_owned())),
        _ => bail!("{} is not in a cargo target folder", program.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::place;
    use std::path::Path;

    #[test]
    fn the_profile_is_read_from_where_the_program_lies() {
        let of = |path| place(Path::new(path)).unwrap();
        assert_eq!(of("/t/debug/deps/a-1"), ("/t".into(), "dev".to_owned()));
        assert_eq!(of("/t/release/cluster"), ("/t".into(), "release".to_owned()));
        assert_eq!(of("/t/dist/examples/x"), ("/t".into(), "dist".to_owned()));
        assert!(place(Path::new("/x")).is_err());
    }
}
