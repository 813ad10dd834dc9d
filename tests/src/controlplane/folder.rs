//! Owns the folder of one plane: where it is and when it goes.

use std::path::Path;

use anyhow::Result;
use tempfile::TempDir;

use super::guard;

/// The folder of one plane; kept on drop when `BERTH_TESTS_KEEP` is set.
#[derive(Debug)]
pub(super) struct Folder(TempDir);

impl Folder {
    pub(super) fn new() -> Result<Self> {
        let mut folder = tempfile::Builder::new().prefix("berth-plane-").tempdir()?;
        if std::env::var_os("BERTH_TESTS_KEEP").is_some() {
            folder.disable_cleanup(true);
            eprintln!("keeping {}", folder.path().display());
        } else {
            guard::remove_folder(folder.path())?;
        }
        Ok(Self(folder))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}
