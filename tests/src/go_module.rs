//! Owns programs built from pinned Go modules of `tests/`: once, into the user's cache, then only found. Knows no program's purpose.

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

/// How often a build that runs for minutes says that it is alive.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Lines of compiler output that a failed build shows.
const TAIL_LINES: usize = 30;

/// Where Go is looked for and where programs are kept. The default is what everybody wants;
/// tests of the builder set the fields.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Folders to look for `go` in, in the form of `PATH`; default: this process's `PATH`.
    pub search_path: Option<OsString>,
    /// The user's cache folder; default: `$XDG_CACHE_HOME`, else `~/.cache`.
    pub cache_folder: Option<PathBuf>,
}

/// A folder of `tests/` with a `go.mod`, a `go.sum` and no code of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GoModule {
    /// The folder's name, which is also the cache folder's.
    pub(crate) folder: &'static str,
    /// What a person is told is being built, with its article.
    pub(crate) purpose: &'static str,
    /// What the builds together must leave.
    pub(crate) programs: &'static [&'static str],
    pub(crate) builds: &'static [GoBuild],
    /// Programs that Go names after a package's last element that says nothing, and what they are called here.
    pub(crate) renamed: &'static [(&'static str, &'static str)],
}

/// One run of `go build`.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct GoBuild {
    /// Packages, or `tool` for all that go.mod names.
    pub(crate) packages: &'static [&'static str],
    /// Flags on top of those of every build.
    pub(crate) flags: &'static [&'static str],
    /// With C code, by the machine's compiler.
    pub(crate) with_c: bool,
}

impl GoModule {
    /// The folder with the built programs: found, or built now. Processes that come here together build once. Blocks; progress goes
    /// to standard error.
    pub(crate) fn built(&self, options: &BuildOptions) -> Result<PathBuf> {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.folder);
        let go = find_go(options)?;
        let key = self.key(&module, &go)?;
        let cache = cache_folder(options)?.join(self.folder);
        fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
        let done = cache.join(&key);
        if done.is_dir() {
            return Ok(done);
        }
        let _lock = lock(&cache.join(format!("{key}.lock")), self.purpose)?;
        if done.is_dir() {
            return Ok(done);
        }
        // The lock is ours, so what lies there was left by a build that died.
        let partial = cache.join(format!("{key}.partial"));
        if partial.is_dir() {
            fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
        }
        say(&format!(
            "building {} from Go modules into {}; this is once, and takes some minutes",
            self.programs.join(", "),
            done.display()
        ));
        self.build(&module, &go, &partial)?;
        fs::rename(&partial, &done).with_context(|| format!("put {} into place", self.purpose))?;
        Ok(done)
    }

    /// Equal inputs, equal folder. The hash is not promised to be the same in another Rust release;
    /// a toolchain change then costs one rebuild.
    fn key(&self, module: &Path, go: &Path) -> Result<String> {
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
        self.builds.hash(&mut hasher);
        Ok(format!("{:016x}", hasher.finish()))
    }

    fn build(&self, module: &Path, go: &Path, into: &Path) -> Result<()> {
        fs::create_dir_all(into).with_context(|| format!("create {}", into.display()))?;
        let started = Instant::now();
        for build in self.builds {
            build.run(go, module, into, self.purpose)?;
        }
        for (as_built, name) in self.renamed {
            fs::rename(into.join(as_built), into.join(name)).with_context(|| format!("rename the built {name}"))?;
        }
        for program in self.programs {
            if !into.join(program).is_file() {
                bail!("go built no {program}: is it among the tools of {}/go.mod?", module.display());
            }
        }
        say(&format!("{} built in {} s", self.purpose, started.elapsed().as_secs()));
        Ok(())
    }
}

impl GoBuild {
    fn run(&self, go: &Path, module: &Path, into: &Path, purpose: &str) -> Result<()> {
        let started = Instant::now();
        let mut command = go_command(go, module);
        if self.with_c {
            command.env("CGO_ENABLED", "1");
        }
        command.args(["build", "-v", "-mod=readonly", "-trimpath", "-buildvcs=false"]).args(self.flags);
        command.arg("-o").arg(into).args(self.packages).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("run {}", go.display()))?;
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
            let needs = if self.with_c { " (it needs a C compiler: gcc with the C library's headers)" } else { "" };
            bail!("go could not build {purpose}{needs}:\n{}", tail.join("\n"));
        }
        Ok(())
    }
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

/// Where programs of tests are kept from run to run.
pub(crate) fn cache_folder(options: &BuildOptions) -> Result<PathBuf> {
    if let Some(folder) = &options.cache_folder {
        return Ok(folder.join("berth"));
    }
    // The XDG rule: a relative path there is to be ignored.
    let xdg = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = xdg
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .context("no folder for built programs: set HOME or XDG_CACHE_HOME")?;
    Ok(folder.join("berth"))
}

/// Locks a file until it is dropped, and tells a person who has to wait.
fn lock(path: &Path, purpose: &str) -> Result<File> {
    let lock = File::create(path).with_context(|| format!("create {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            say(&format!("another process is building {purpose}; waiting for it"));
            lock.lock().with_context(|| format!("lock {}", path.display()))?;
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {}", path.display())),
    }
    Ok(lock)
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

/// Straight to standard error: the test runner would hold back what `eprintln!` says until the
/// test ends, and a silent five minutes look like a hang.
pub(crate) fn say(text: &str) {
    let _ = writeln!(stderr(), "berth-tests: {text}");
}
