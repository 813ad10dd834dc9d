//! Owns a folder of the harness, of a plane or a made node: where it is and when it goes.

use std::path::Path;

use anyhow::Result;
use tempfile::TempDir;

use super::guard;

/// A temporary folder, gone on drop and also when this process dies; kept when `BERTH_TESTS_KEEP` is set.
#[derive(Debug)]
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new(prefix: &str) -> Result<Self> {
        let mut folder = tempfile::Builder::new().prefix(prefix).tempdir()?;
        if std::env::var_os("BERTH_TESTS_KEEP").is_some() {
            folder.disable_cleanup(true);
            eprintln!("keeping {}", folder.path().display());
        } else {
            guard::remove_folder(folder.path())?;
        }
        Ok(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}
