//! Owns one child process: started with its output in a log file, waited for
//! with deadlines, ended or killed on purpose, and killed on drop. Knows nothing
//! of what the program is.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::Instant;

use super::{guard, http};

/// How often a condition is looked at again while waiting for it.
const POLL: Duration = Duration::from_millis(20);

/// Lines of a log that an error carries: enough for a Go panic's head, little enough to read.
const TAIL_LINES: usize = 25;

/// Variables of the caller that would lead a child elsewhere: a proxy, another cluster.
const FOREIGN_VARIABLES: [&str; 7] =
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "KUBECONFIG"];

/// What to run; kept by the [`Process`] so that it can be restarted as it was.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
}

impl ProcessSpec {
    /// A program under a name; the name is the log file's stem and what errors call it.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), program: program.into(), args: Vec::new(), env: Vec::new(), folder: None }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable on top of the inherited ones. Proxy variables and `KUBECONFIG` are not inherited.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// The name under which it will run.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts it by another program, which gets these arguments and after them the whole command.
    #[must_use]
    pub fn through(mut self, program: impl Into<PathBuf>, args: impl IntoIterator<Item = OsString>) -> Self {
        let inner = std::mem::replace(&mut self.program, program.into());
        self.args = args.into_iter().chain([inner.into_os_string()]).chain(self.args).collect();
        self
    }

    /// Runs it in this folder instead of the caller's.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }
}

/// A running (or ended) child. Dropping it kills it with everything in its process group; so
/// does the death of this process.
#[derive(Debug)]
pub struct Process {
    spec: ProcessSpec,
    log_path: PathBuf,
    log_start: u64,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it, with standard output and error appended to `<log_folder>/<name>.log`.
    ///
    /// # Errors
    /// The program cannot be started, or the log file cannot be written.
    pub fn spawn(spec: ProcessSpec, log_folder: &Path) -> Result<Self> {
        let log_path = log_folder.join(format!("{}.log", spec.name));
        let (child, log_start) = launch(&spec, &log_path)?;
        Ok(Self { spec, log_path, log_start, child, ended: None })
    }

    /// Stops it in its tracks, as a machine that swaps does.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// The name given in the spec.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The process id, which is also the id of its process group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with its standard output and error, of all its starts.
    pub fn log_path(&self) -> &Path {
        &self.log_path
    }

    /// What it wrote since its last start.
    ///
    /// # Errors
    /// The log file cannot be read.
    pub fn log(&self) -> Result<String> {
        let mut file = File::open(&self.log_path).with_context(|| format!("open {}", self.log_path.display()))?;
        file.seek(SeekFrom::Start(self.log_start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The last lines since its last start, for a person; says so when they cannot be read.
    pub fn log_tail(&self) -> String {
        match self.log() {
            Ok(text) => {
                let lines: Vec<&str> = text.lines().collect();
                let from = lines.len().saturating_sub(TAIL_LINES);
                lines.get(from..).unwrap_or_default().join("\n")
            }
            Err(error) => format!("(no log: {error:#})"),
        }
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
            if self.ended.is_some() {
                guard::unwatch(self.child.id())?;
            }
        }
        Ok(self.ended)
    }

    /// Kills it at once, like `kill -9`, and reaps it. Nothing happens to one that has ended.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn kill(&mut self) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        self.signal(Signal::KILL)?;
        self.ended = Some(self.child.wait()?);
        guard::unwatch(self.child.id())?;
        Ok(())
    }

    /// Asks it to end, by SIGTERM. [`Process::ended`] says when it has.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn ask_to_end(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// It still runs after `within`; the error carries the log's tail and it is left running.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        self.wait_for_end(within).await
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It still runs after `within`.
    pub async fn wait_for_end(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {within:?}; its log ends:\n{}", self.name(), self.log_tail());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Kills it if it runs and starts it again as it was; the log goes on in the same file.
    ///
    /// # Errors
    /// As [`Process::kill`] and [`Process::spawn`].
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        (self.child, self.log_start) = launch(&self.spec, &self.log_path)?;
        self.ended = None;
        Ok(())
    }

    /// Waits for a line containing `needle`, written since the last start, and returns that line.
    ///
    /// # Errors
    /// It ended without such a line, or `within` passed.
    pub async fn wait_for_log(&mut self, needle: &str, within: Duration) -> Result<String> {
        let deadline = Instant::now() + within;
        loop {
            // Asked before the log is read, so that the last words of one that ends are seen.
            let ended = self.ended()?;
            if let Some(line) = self.log()?.lines().find(|line| line.contains(needle)) {
                return Ok(line.to_owned());
            }
            self.still_waiting(ended, deadline, &format!("a log line with {needle:?}"))?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a GET of this `http://` URL answers 200, and returns the body.
    ///
    /// # Errors
    /// It ended before, or `within` passed; the error carries the last answer and the log's tail.
    pub async fn wait_for_http(&mut self, url: &str, within: Duration) -> Result<String> {
        self.wait_for_ok(&http::Getter::plain(url)?, within).await
    }

    pub(super) async fn wait_for_ok(&mut self, getter: &http::Getter, within: Duration) -> Result<String> {
        let deadline = Instant::now() + within;
        loop {
            let last = match getter.get().await {
                Ok((200, body)) if self.ended()?.is_none() => return Ok(body),
                Ok((status, body)) => format!("{status} {}", body.trim()),
                Err(error) => format!("{error:#}"),
            };
            let ended = self.ended()?;
            self.still_waiting(ended, deadline, &format!("200 from {}, last {last}", getter.url()))?;
            tokio::time::sleep(POLL).await;
        }
    }

    fn still_waiting(&self, ended: Option<ExitStatus>, deadline: Instant, what: &str) -> Result<()> {
        if let Some(status) = ended {
            let how = match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit status {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => "an unknown status".to_owned(),
            };
            bail!("{} ended with {how} before {what}; its log ends:\n{}", self.name(), self.log_tail());
        }
        if Instant::now() > deadline {
            bail!("{} did not get to {what} in time; its log ends:\n{}", self.name(), self.log_tail());
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        // The child is not reaped yet, so its id still names its own group.
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("process id out of range")?;
        kill_process_group(group, signal).with_context(|| format!("signal {}", self.name()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            // Nobody can be told by value here; the guard still kills it when we end.
            eprintln!("{} was not killed: {error:#}", self.name());
        }
        if std::thread::panicking() {
            eprintln!("--- {} ({})\n{}", self.name(), self.log_path.display(), self.log_tail());
        }
    }
}

fn launch(spec: &ProcessSpec, log_path: &Path) -> Result<(Child, u64)> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log_path)
        .with_context(|| format!("open {}", log_path.display()))?;
    let log_start = fs::metadata(log_path)?.len();
    let mut command = Command::new(&spec.program);
    command.args(&spec.args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    for variable in FOREIGN_VARIABLES {
        command.env_remove(variable);
    }
    command.envs(spec.env.iter().map(|(key, value)| (key, value)));
    if let Some(folder) = &spec.folder {
        command.current_dir(folder);
    }
    let child = command.spawn().with_context(|| format!("start {}", spec.program.display()))?;
    guard::watch(child.id()).context("tell the guard shell of a child")?;
    Ok((child, log_start))
}

#[cfg(test)]
mod tests;
