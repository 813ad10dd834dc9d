//! Whether the node's container runtime knows CDI. One that does not starts a container without its lease, and so without any device: no pod
//! there would ever get what it waits for.

/// Why a runtime, as the kubelet names it in `nodeInfo.containerRuntimeVersion`, has no CDI; `None` where it has, or is not known.
///
/// Source: github.com/containerd/containerd `docs/cri/config.md` (`enable_cdi` is off before 2.0), cri-o's release notes of 1.23.
/// Checked: 2026-11-21.
pub(super) fn lacks_cdi(version: &str) -> Option<String> {
    let (name, version) = version.split_once("://")?;
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']).map(|part| part.parse::<u32>().ok());
    let found = (numbers.next()??, numbers.next()??);
    let first = match name {
        "containerd" => (2, 0),
        "cri-o" => (1, 23),
        "docker" => return Some("docker takes no CDI devices from a kubelet".to_owned()),
        _ => return None,
    };
    (found < first).then(|| format!("{name} {version} takes CDI devices from {}.{} on", first.0, first.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_that_ignore_cdi_unless_told_are_known() {
        for has in ["containerd://2.4.2", "containerd://v2.0.0-rc.1", "cri-o://1.33.1", "own://1", "containerd://x", ""]
        {
            assert_eq!(lacks_cdi(has), None, "{has}");
        }
        let lacking = lacks_cdi("containerd://1.7.27").unwrap();
        assert_eq!(lacking, "containerd 1.7.27 takes CDI devices from 2.0 on");
        assert!(lacks_cdi("cri-o://1.22.5").is_some() && lacks_cdi("docker://24.0.1").is_some());
    }
}
