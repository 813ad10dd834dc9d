//! What an operator should read in the log when the hardware changed. Pure: the caller logs.

use berth_model::{Driver, Gpu, NodeTopology};

/// Most lines per change: a rack that loses power must not flood the log.
const LINES_MAX: usize = 40;

/// What is new between two readings, one line each; without an earlier one, all that is not as it should be.
pub(crate) fn news(before: Option<&NodeTopology>, now: &NodeTopology) -> Vec<String> {
    let mut lines = Vec::new();
    let now = now.parts();
    let before = before.map(NodeTopology::parts);
    if before.map(|b| &b.driver) != Some(&now.driver) {
        match &now.driver {
            Driver::Loaded(versions) => lines.push(format!("driver {} answers", versions.driver)),
            Driver::Absent(why) => lines.push(format!("no NVIDIA driver, the report has CPU facts only: {why}")),
        }
    }
    for gpu in &now.gpus {
        let earlier = before.and_then(|b| b.gpus.iter().find(|g| g.uuid == gpu.uuid));
        match earlier {
            Some(earlier) if earlier.health != gpu.health => {
                lines.push(format!("{} was {} and is {}", place(gpu), earlier.health.word(), health(gpu)));
            }
            None if !gpu.health.is_usable() => lines.push(format!("{} is {}", place(gpu), health(gpu))),
            None if before.is_some() => lines.push(format!("{} is new", place(gpu))),
            _ => {}
        }
    }
    for gone in before.iter().flat_map(|b| &b.gpus).filter(|b| !now.gpus.iter().any(|g| g.uuid == b.uuid)) {
        lines.push(format!("{} is gone", place(gone)));
    }
    for finding in now.findings.iter().filter(|f| !before.is_some_and(|b| b.findings.contains(f))) {
        lines.push(format!("{} {}: {}", finding.code, finding.device, finding.text));
    }
    lines.truncate(LINES_MAX);
    lines
}

fn place(gpu: &Gpu) -> String {
    format!("{} at {}", gpu.uuid, gpu.pci)
}

fn health(gpu: &Gpu) -> String {
    match gpu.health.reason() {
        "" => gpu.health.word().to_owned(),
        reason => format!("{}: {reason}", gpu.health.word()),
    }
}

#[cfg(test)]
mod tests {
    use berth_model::{
        BootId, CpuSet, Generation, GpuIndex, GpuUuid, Health, Link, LinkMatrix, NodeName, Parts, PciAddress,
    };

    use super::*;

    fn node(driver: Driver, healths: &[Health]) -> NodeTopology {
        let gpu = |(i, health): (u8, &Health)| Gpu {
            index: GpuIndex(i),
            uuid: GpuUuid::parse(&format!("GPU-{i}")).unwrap(),
            pci: PciAddress { domain: 0, bus: i, device: 0, function: 0 },
            product: String::new(),
            memory: None,
            zone: None,
            cpus: CpuSet::default(),
            memory_zone: None,
            nearest_zones: None,
            mig_enabled: None,
            health: health.clone(),
            detail: berth_model::GpuDetail::default(),
        };
        NodeTopology::try_new(Parts {
            node: NodeName::parse("n").unwrap(),
            boot_id: BootId::parse("b").unwrap(),
            generation: Generation(0),
            driver,
            zones: Vec::new(),
            gpus: (0..).zip(healths).map(gpu).collect(),
            nics: Vec::new(),
            links: LinkMatrix::build(healths.len(), |_, _| Link::default()),
            host: berth_model::Host::default(),
            findings: Vec::new(),
            drifts: Vec::new(),
            refusals: Vec::new(),
            device_plugin: None,
        })
        .unwrap()
    }

    #[test]
    fn the_first_reading_tells_only_what_is_not_as_it_should_be() {
        let driver = || Driver::Loaded("570".into());
        let sick = Health::Unhealthy("lost".to_owned());
        assert_eq!(
            news(None, &node(driver(), &[Health::Healthy, sick])),
            ["driver 570 answers", "GPU-1 at 0000:01:00.0 is unhealthy: lost"]
        );
        assert_eq!(
            news(None, &node(Driver::Absent("no library".to_owned()), &[])),
            ["no NVIDIA driver, the report has CPU facts only: no library"]
        );
    }

    #[test]
    fn a_later_reading_tells_only_what_changed() {
        let driver = || Driver::Loaded("570".into());
        let sick = Health::Unhealthy("lost".to_owned());
        let before = node(driver(), &[Health::Healthy, Health::Healthy]);
        assert_eq!(news(Some(&before), &before), [""; 0]);
        assert_eq!(
            news(Some(&before), &node(driver(), &[Health::Healthy, sick])),
            ["GPU-1 at 0000:01:00.0 was healthy and is unhealthy: lost"]
        );
        assert_eq!(news(Some(&before), &node(driver(), &[Health::Healthy])), ["GPU-1 at 0000:01:00.0 is gone"]);
        let one = node(driver(), &[Health::Healthy]);
        assert_eq!(news(Some(&one), &before), ["GPU-1 at 0000:01:00.0 is new"]);
    }
}
