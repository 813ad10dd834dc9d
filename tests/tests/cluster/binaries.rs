//! Holds the harness to building Berth's own programs where the tests are built.

use anyhow::Result;
use berth_tests::binaries::binaries;

#[test]
fn the_programs_lie_beside_the_running_test() -> Result<()> {
    let built = binaries()?;
    let here = std::env::current_exe()?;
    let profile = here.parent().and_then(std::path::Path::parent);
    for program in [&built.agent, &built.scheduler, &built.cli, &built.fake_nvml] {
        assert!(program.is_file(), "{}", program.display());
        assert_eq!(program.parent(), profile);
    }
    Ok(())
}
