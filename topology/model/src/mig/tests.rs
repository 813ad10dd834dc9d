//! Claims about profiles, placements and instances.

use super::*;

fn capability() -> MigCapability {
    catalog::KnownBoard::by_name("h100-80").unwrap().capability().unwrap()
}

#[test]
fn a_placement_that_the_hardware_never_offered_cannot_be_had() {
    let capability = capability();
    let three = capability.by_name("3g.40gb").unwrap();
    assert_eq!(three.placement(4, 4).map(|p| (p.start(), p.size())), Some((4, 4)));
    assert_eq!(three.placement(2, 4), None);
    assert_eq!(capability.by_id(14).unwrap().placement(6, 2), None, "a 2g may not start at 6");
    let left = three.placement(0, 4).unwrap().mask();
    assert_eq!(three.free_placements(left).map(Placement::start).collect::<Vec<_>>(), [4]);
}

#[test]
fn instances_read_back_and_overlapping_ones_have_no_slots() {
    let capability = capability();
    let of = |text: &str| MigInstance::parse(text, &capability);
    let a = of("3g.40gb@4+4 MIG-1 MIG-2").unwrap();
    assert_eq!(a.to_string(), "3g.40gb@4+4 MIG-1 MIG-2");
    let b = of("1g.10gb@0+1").unwrap();
    assert_eq!(MigInstance::slots(&[a.clone(), b]).unwrap().bits(), 0b1111_0001);
    assert_eq!(MigInstance::slots(&[a, of("1g.20gb@6+2").unwrap()]), None);
    for bad in ["", "3g.40gb", "3g.40gb@4", "3g.40gb@3+4", "9g.1gb@0+1", "1g.10gb@0+2", "1g.10gb@0+1 MIG-\u{e9}"] {
        assert_eq!(of(bad), None, "{bad}");
    }
}

#[test]
fn text_that_is_no_profile_is_refused() {
    for bad in
        ["", "1g", "1g.10gb 19 1 9856", "1g.10gb 19 1 9856 7 1", "1g.10gb 19 1 9856 7 1@8", "1g@x 19 1 9856 7 1@0"]
    {
        assert!(MigProfile::parse(bad).is_err(), "{bad}");
    }
    let row = MigProfile::parse("1g.10gb 19 1 9856 7 1@0").unwrap();
    assert!(MigCapability::try_new(vec![row.clone(), row]).is_err());
}
