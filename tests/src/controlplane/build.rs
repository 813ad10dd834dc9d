//! Owns the control plane's programs: built once from the pinned Go modules of
//! `tests/controlplane/` into the user's cache, then only found. Starts nothing.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The oldest Go that the pinned modules compile with (their own `go` line).
const GO_VERSION_MIN: &str = "1.26";

/// Kubernetes refuses to guess its version: unset, it calls itself v0.0.0-master and clients stumble.
const KUBERNETES_VERSION: (&str, &str, &str) = ("v1.36.3", "1", "36");

/// How often a build that runs for minutes says that it is alive.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Lines of compiler output that a failed build shows.
const TAIL_LINES: usize = 30;

/// Go names a program after its package's last element; this is the one that says nothing.
const ETCD_AS_BUILT: &str = "server";

const PROGRAMS: [&str; 4] = ["etcd", "kube-apiserver", "kube-scheduler", "kubectl"];

/// Where Go is looked for and where programs are kept. The default is what everybody wants;
/// tests of the builder set the fields.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Folders to look for `go` in, in the form of `PATH`; default: this process's `PATH`.
    pub search_path: Option<OsString>,
    /// The user's cache folder; default: `$XDG_CACHE_HOME`, else `~/.cache`.
    pub cache_folder: Option<PathBuf>,
}

/// The built programs of a control plane.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// The store.
    pub fn etcd(&self) -> PathBuf {
        self.folder.join("etcd")
    }

    /// The API server.
    pub fn kube_apiserver(&self) -> PathBuf {
        self.folder.join("kube-apiserver")
    }

    /// The stock scheduler.
    pub fn kube_scheduler(&self) -> PathBuf {
        self.folder.join("kube-scheduler")
    }

    /// The client.
    pub fn kubectl(&self) -> PathBuf {
        self.folder.join("kubectl")
    }
}

/// Finds the programs, or builds them: about five minutes on two cores the first time, and
/// again only when `go.mod`, `go.sum`, Go or the flags change. Processes that come here
/// together build once. Blocks; progress goes to standard error.
///
/// # Errors
/// Go is missing (the text says what to install) or fails; the cache cannot be written.
pub fn programs(options: &BuildOptions) -> Result<Programs> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("controlplane");
    let go = find_go(options)?;
    let flags = flags();
    let key = key(&module, &go, &flags)?;
    let cache = cache_folder(options)?.join("berth").join("controlplane");
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let programs = Programs { folder: cache.join(&key) };
    if programs.folder.is_dir() {
        return Ok(programs);
    }

    let lock_path = cache.join(format!("{key}.lock"));
    let lock = File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            say("another process is building the control plane; waiting for it");
            lock.lock().with_context(|| format!("lock {}", lock_path.display()))?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("lock {}", lock_path.display()));
        }
    }
    if !programs.folder.is_dir() {
        // The lock is ours, so what lies there was left by a build that died.
        let partial = cache.join(format!("{key}.partial"));
        if partial.is_dir() {
            fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
        }
        say(&format!(
            "building {} from Go modules into {}; this is once, and takes some minutes",
            PROGRAMS.join(", "),
            programs.folder.display()
        ));
        build(&module, &go, &flags, &partial)?;
        fs::rename(&partial, &programs.folder).context("put the built control plane into place")?;
    }
    Ok(programs)
}

fn find_go(options: &BuildOptions) -> Result<PathBuf> {
    let path = options.search_path.clone().or_else(|| std::env::var_os("PATH")).unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("go")).find(|file| file.is_file());
    found.with_context(|| {
        format!(
            "the tests run a real control plane, which is built from its Go modules, and `go` is not on PATH: \
             install Go {GO_VERSION_MIN} or newer (https://go.dev/dl/) and put its bin folder on PATH"
        )
    })
}

fn cache_folder(options: &BuildOptions) -> Result<PathBuf> {
    if let Some(folder) = &options.cache_folder {
        return Ok(folder.clone());
    }
    // The XDG rule: a relative path there is to be ignored.
    let xdg = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    xdg.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .context("no folder for built programs: set HOME or XDG_CACHE_HOME")
}

fn flags() -> Vec<String> {
    let (version, major, minor) = KUBERNETES_VERSION;
    let package = "k8s.io/component-base/version";
    let link =
        format!("-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}");
    ["-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", &link].map(str::to_owned).to_vec()
}

fn go_command(go: &Path, module: &Path) -> Command {
    let mut command = Command::new(go);
    command
        .current_dir(module)
        .stdin(Stdio::null())
        // The caller's own Go settings must not reach into a build that is kept by its inputs' hash.
        .env("GOFLAGS", "")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0");
    command
}

/// Equal inputs, equal folder. The hash is not promised to be the same in another Rust release;
/// a toolchain change then costs one rebuild.
fn key(module: &Path, go: &Path, flags: &[String]) -> Result<String> {
    // Asked in the module's folder, because `go` may switch to the toolchain that go.mod names.
    let answer = go_command(go, module)
        .args(["env", "GOVERSION", "GOOS", "GOARCH"])
        .output()
        .with_context(|| format!("run {}", go.display()))?;
    if !answer.status.success() {
        bail!("`{} env` failed: {}", go.display(), String::from_utf8_lossy(&answer.stderr).trim());
    }
    let mut hasher = DefaultHasher::new();
    for name in ["go.mod", "go.sum"] {
        let path = module.join(name);
        fs::read(&path).with_context(|| format!("read {}", path.display()))?.hash(&mut hasher);
    }
    answer.stdout.hash(&mut hasher);
    flags.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

fn build(module: &Path, go: &Path, flags: &[String], into: &Path) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("create {}", into.display()))?;
    let started = Instant::now();
    let mut child = go_command(go, module)
        .args(["build", "-v"])
        .args(flags)
        .arg("-o")
        .arg(into)
        .arg("tool")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {}", go.display()))?;
    // With -v, go writes one line for every package: that is the progress, and the errors among it.
    let mut lines = Vec::new();
    let mut said = started;
    if let Some(output) = child.stderr.take() {
        for line in BufReader::new(output).lines() {
            lines.push(line.context("read what go says")?);
            if said.elapsed() >= PROGRESS_EVERY {
                said = Instant::now();
                say(&format!("  {} s, {} packages", started.elapsed().as_secs(), lines.len()));
            }
        }
    }
    if !child.wait()?.success() {
        let tail = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default();
        bail!("go could not build the control plane:\n{}", tail.join("\n"));
    }
    fs::rename(into.join(ETCD_AS_BUILT), into.join("etcd")).context("rename the built etcd")?;
    for program in PROGRAMS {
        if !into.join(program).is_file() {
            bail!("go built no {program}: is it among the tools of {}/go.mod?", module.display());
        }
    }
    say(&format!("control plane built in {} s", started.elapsed().as_secs()));
    Ok(())
}

/// Straight to standard error: the test runner would hold back what `eprintln!` says until the
/// test ends, and a silent five minutes look like a hang.
fn say(text: &str) {
    let _ = writeln!(stderr(), "berth-tests: {text}");
}
