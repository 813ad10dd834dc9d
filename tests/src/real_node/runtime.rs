//! Owns the programs of a real node besides the kubelet: containerd, runc and a network of loopback alone, built from the pinned Go
//! modules of `tests/noderuntime/`, and the image of the tests' pods, for there is no registry.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::go_module::{BuildOptions, GoBuild, GoModule, cache_folder};

/// What pods of tests name as their image.
pub const IMAGE: &str = "berth.dev/tests/pod:1";

/// Who the pods run as, so that they may be told to run as nobody special.
const USER: &str = "65532:65532";

/// The storage drivers that the tests do not use would need kernel headers.
const CONTAINERD_TAGS: &str = "no_btrfs no_devmapper no_zfs no_aufs";

const MODULE: GoModule = GoModule {
    folder: "noderuntime",
    purpose: "the nodes' container runtime",
    programs: &["containerd", "containerd-shim-runc-v2", "ctr", "runc", "loopback"],
    builds: &[
        GoBuild {
            packages: &[
                "github.com/containerd/containerd/v2/cmd/containerd",
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                "github.com/containerd/containerd/v2/cmd/ctr",
                "github.com/containernetworking/plugins/plugins/main/loopback",
            ],
            flags: &["-ldflags", "-s -w", "-tags", CONTAINERD_TAGS],
            with_c: false,
        },
        // Its first steps inside a container are written in C.
        GoBuild { packages: &["github.com/opencontainers/runc"], flags: &["-ldflags", "-s -w"], with_c: true },
    ],
    renamed: &[],
};

/// The built programs and the image.
#[derive(Debug, Clone)]
pub(super) struct Runtime {
    /// Where containerd and its companions are.
    pub(super) programs: PathBuf,
    /// The image as an OCI layout in a tar.
    pub(super) image: PathBuf,
}

/// Finds them, or builds them: about two minutes on two cores the first time.
pub(super) fn runtime() -> Result<Runtime> {
    let options = BuildOptions::default();
    Ok(Runtime { programs: MODULE.built(&options)?, image: image(&cache_folder(&options)?.join("pod"))? })
}

/// The image, packed on first use into the folder under a name that changes with the program.
fn image(folder: &Path) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("pod/main.rs");
    let text = fs::read(&source).with_context(|| format!("read {}", source.display()))?;
    let mut hasher = DefaultHasher::new();
    (text, IMAGE, USER).hash(&mut hasher);
    let image = folder.join(format!("{:016x}.tar", hasher.finish()));
    if image.is_file() {
        return Ok(image);
    }
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    // Others may do the same at the same time: each makes its own, and the last rename wins.
    let scratch = tempfile::tempdir_in(folder)?;
    let program = scratch.path().join("pod");
    compile(&source, &program)?;
    let packed = scratch.path().join("image.tar");
    fs::write(&packed, layout(&fs::read(&program)?)?)?;
    fs::rename(&packed, &image).context("put the pods' image into place")?;
    Ok(image)
}

/// Compiles it so that it needs nothing of an image but itself.
fn compile(source: &Path, program: &Path) -> Result<()> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "opt-level=s", "-C", "panic=abort"]);
    let output =
        command.args(["-C", "strip=symbols", "-o"]).arg(program).arg(source).output().context("start rustc")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("rustc cannot compile the pods' program (it needs a static C library, libc6-dev):\n{}", said.trim());
    }
    Ok(())
}

/// An image of one layer with one program, in the form that `ctr images import` takes.
fn layout(program: &[u8]) -> Result<Vec<u8>> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut layer = Tar::default();
    layer.add("pod", program, 0o755)?;
    let layer = layer.end();
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": ["/pod"], "User": USER},
        "rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]},
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    entry["platform"] = json!({"architecture": architecture, "os": "linux"});
    entry["annotations"] = json!({"io.containerd.image.name": IMAGE});
    let mut tar = Tar::default();
    tar.add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    tar.add("index.json", json!({"schemaVersion": 2, "manifests": [entry]}).to_string().as_bytes(), 0o644)?;
    for blob in [layer.as_slice(), config.as_bytes(), manifest.as_bytes()] {
        tar.add(&format!("blobs/{}", sha256(blob).replace(':', "/")), blob, 0o644)?;
    }
    Ok(tar.end())
}

fn descriptor(kind: &str, blob: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": sha256(blob), "size": blob.len()})
}

fn sha256(blob: &[u8]) -> String {
    let digest = digest(&SHA256, blob);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Files in the old form of POSIX, which everything reads.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    const BLOCK: usize = 512;

    fn add(&mut self, name: &str, content: &[u8], mode: u32) -> Result<()> {
        let mut header = [0_u8; Self::BLOCK];
        let mut put = |at: usize, text: &str| -> Result<()> {
            let place = header.get_mut(at..at.saturating_add(text.len())).context("a name too long for a tar")?;
            place.copy_from_slice(text.as_bytes());
            Ok(())
        };
        anyhow::ensure!(name.len() < 100, "{name}: a name too long for a tar");
        put(0, name)?;
        put(100, &format!("{mode:07o}"))?;
        put(108, "0000000")?;
        put(116, "0000000")?;
        put(124, &format!("{:011o}", content.len()))?;
        put(136, "00000000000")?;
        // The sum is taken with blanks in its own place.
        put(148, "        ")?;
        put(156, "0")?;
        put(257, "ustar\u{0}00")?;
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        let place = header.get_mut(148..156).context("a header of 512 bytes")?;
        place.copy_from_slice(format!("{sum:06o}\u{0} ").as_bytes());
        self.0.extend(header);
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(Self::BLOCK), 0);
        Ok(())
    }

    /// Two empty blocks end it.
    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * Self::BLOCK, 0);
        self.0
    }
}
