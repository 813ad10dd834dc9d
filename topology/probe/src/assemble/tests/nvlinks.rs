//! Claims about NVLinks: what both ends say, and what cannot be read.

use super::*;
use crate::facts::{NvLinkFacts, RemoteDevice};

fn link(remote: Answer<RemoteDevice>, to: Answer<PciAddress>) -> NvLinkFacts {
    NvLinkFacts {
        number: 0,
        active: Ok(true),
        remote,
        remote_pci: to,
        version: Err(NvmlFailure::NotSupported),
        errors: Err(NvmlFailure::NotSupported),
    }
}

fn nvlinks_between(a: Answer<Vec<NvLinkFacts>>, b: Answer<Vec<NvLinkFacts>>) -> (u8, Parts) {
    let mut facts = facts();
    let switch = pci(0x50, 0x06_8000, None);
    facts.sysfs.pci.insert(switch.0, switch.1);
    for (position, links) in [(0, a), (1, b)] {
        devices(&mut facts)[position].as_mut().unwrap().nvlinks = links;
    }
    let parts = judge(&facts);
    (parts.links.link(0, 1).unwrap().nvlinks, parts)
}

#[test]
fn nvlinks_count_when_both_ends_see_them() {
    let gpu = |bus| link(Ok(RemoteDevice::Gpu), Ok(address(bus)));
    let untyped = |bus| link(Err(NvmlFailure::NoSymbol), Ok(address(bus)));
    let switch = || link(Ok(RemoteDevice::Switch), Err(NvmlFailure::NotSupported));
    let silent = || Err(NvmlFailure::NotSupported);
    let down = || NvLinkFacts { active: Ok(false), ..gpu(2) };
    for (a, b, count) in [
        (Ok(vec![gpu(2), gpu(2), gpu(3)]), Ok(vec![gpu(1), gpu(1)]), 2),
        (Ok(vec![gpu(2), gpu(2)]), Ok(vec![gpu(1)]), 1),
        (Ok(vec![gpu(2), gpu(2)]), silent(), 2),
        (silent(), silent(), 0),
        (Ok(vec![gpu(2), down()]), Ok(vec![gpu(1)]), 1),
        (Ok(vec![untyped(2)]), Ok(vec![untyped(1)]), 1),
        (Ok(vec![switch(); 18]), Ok(vec![switch(); 16]), 16),
        (Ok(vec![switch(); 18]), Ok(vec![]), 0),
        // Without the type, an NVSwitch on the PCI bus is known by its class.
        (Ok(vec![untyped(0x50); 4]), Ok(vec![switch(); 4]), 4),
        (Ok(vec![untyped(0x51); 4]), Ok(vec![switch(); 4]), 0),
        (Ok(vec![switch(); 99]), Ok(vec![switch(); 99]), 18),
    ] {
        let (counted, parts) = nvlinks_between(a.clone(), b.clone());
        assert_eq!(counted, count, "{a:?} against {b:?}");
        assert_eq!(codes(&parts), [""; 0]);
    }
}

#[test]
fn nvlinks_that_cannot_be_read_are_a_finding_and_no_illness() {
    let (count, parts) = nvlinks_between(Err(NvmlFailure::Other("odd".to_owned())), Ok(Vec::new()));
    assert_eq!((count, codes(&parts)), (0, vec!["nvlink-unreadable"]));
    assert_eq!(parts.gpus[0].health, Health::Healthy);
}
