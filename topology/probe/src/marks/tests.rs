//! Claims about what is remembered of events, and how long.

use super::*;
use crate::facts::NvmlFailure;
use crate::xid::APPLICATION_XIDS;

const GPU: &str = "GPU-1";

/// Marks with the given Xids of one GPU noted at once.
fn marks(xids: &[u64], now: Instant) -> Marks {
    let mut marks = Marks::default();
    for xid in xids {
        let event = GpuEvent::Xid { uuid: Some(GPU.to_owned()), xid: *xid };
        marks.note(&event, &BTreeSet::from(APPLICATION_XIDS), now);
    }
    marks
}

fn judged(marks: &mut Marks, read: Health, now: Instant) -> Health {
    let mut health = read;
    marks.put_on_gpu(GPU, &mut health, now);
    health
}

#[test]
fn a_broken_gpu_stays_broken_however_well_it_answers() {
    let now = Instant::now();
    let mut marks = marks(&[79], now);
    let broken = Health::Unhealthy("Xid 79: the GPU fell off the bus".to_owned());
    assert_eq!(judged(&mut marks, Health::Healthy, now), broken);
    assert_eq!(judged(&mut marks, Health::Healthy, now + 100 * DOUBT_LASTS), broken);
    assert_eq!(judged(&mut marks, Health::Unknown("x".to_owned()), now), broken);
}

#[test]
fn a_gpu_that_was_silent_and_answers_again_was_reset() {
    let now = Instant::now();
    let mut marks = marks(&[79], now);
    let silent = Health::Unhealthy("NVML: the GPU is lost".to_owned());
    let both = "NVML: the GPU is lost; Xid 79: the GPU fell off the bus".to_owned();
    assert_eq!(judged(&mut marks, silent.clone(), now), Health::Unhealthy(both));
    assert_eq!(judged(&mut marks, Health::Healthy, now), Health::Healthy);
    assert_eq!(judged(&mut marks, silent.clone(), now), silent, "the mark comes back");
}

#[test]
fn a_doubt_ends_when_the_gpu_was_calm_for_long() {
    let now = Instant::now();
    let mut marks = marks(&[94], now);
    let doubtful = Health::Unknown("Xid 94: contained memory error".to_owned());
    assert_eq!(judged(&mut marks, Health::Healthy, now), doubtful);
    assert_eq!(judged(&mut marks, Health::Healthy, now + DOUBT_LASTS / 2), doubtful);
    assert_eq!(judged(&mut marks, Health::Healthy, now + DOUBT_LASTS), Health::Healthy);
    assert_eq!(marks, Marks::default());
}

#[test]
fn of_two_xids_the_worse_one_stays() {
    let now = Instant::now();
    let worse = Health::Unhealthy("Xid 48: double-bit ECC error".to_owned());
    assert_eq!(judged(&mut marks(&[48, 63], now), Health::Healthy, now), worse);
    assert_eq!(judged(&mut marks(&[63, 48], now), Health::Healthy, now), worse);
}

#[test]
fn an_applications_fault_leaves_no_mark() {
    assert_eq!(marks(&APPLICATION_XIDS, Instant::now()), Marks::default());
}

#[test]
fn an_error_of_no_certain_gpu_asks_for_a_new_count_and_so_does_the_end_of_events() {
    let mut marks = Marks::default();
    let ignored = BTreeSet::from(APPLICATION_XIDS);
    marks.note(&GpuEvent::Other { uuid: None }, &ignored, Instant::now());
    marks.note(&GpuEvent::Xid { uuid: None, xid: 13 }, &ignored, Instant::now());
    assert_eq!(marks, Marks::default());
    marks.note(&GpuEvent::WaitFailed(NvmlFailure::Lost), &ignored, Instant::now());
    assert!(marks.wants_new_session() && marks.unassigned.is_none());
    marks.note(&GpuEvent::Xid { uuid: None, xid: 79 }, &ignored, Instant::now());
    assert_eq!(marks.unassigned.as_deref(), Some("Xid 79: the GPU fell off the bus, of no certain GPU"));
}

#[test]
fn a_storm_of_errors_of_no_certain_gpu_asks_for_one_new_session() {
    let (mut marks, now) = (Marks::default(), Instant::now());
    let mut asks = |after: Duration| {
        marks.note(&GpuEvent::Xid { uuid: None, xid: 79 }, &BTreeSet::new(), now + after);
        std::mem::take(&mut marks.new_session)
    };
    assert_eq!([0, 1, 29, 30, 31].map(|s| asks(Duration::from_secs(s))), [true, false, false, true, false]);
}

#[test]
fn marks_are_bounded() {
    let mut marks = Marks::default();
    for i in 0..200 {
        marks.note(&GpuEvent::Xid { uuid: Some(format!("GPU-{i}")), xid: 79 }, &BTreeSet::new(), Instant::now());
    }
    assert_eq!(marks.by_uuid.len(), MARKS_MAX);
    marks.forget();
    assert_eq!(marks, Marks::default());
}

/// A report of one GPU with this health.
fn report(health: Health) -> NodeTopology {
    use berth_model::{
        BootId, Generation, Gpu, GpuDetail, GpuIndex, GpuUuid, Host, LinkMatrix, NodeName, Parts, PciAddress,
    };
    NodeTopology::try_new(Parts {
        node: NodeName::parse("n").unwrap(),
        boot_id: BootId::parse("b").unwrap(),
        generation: Generation(1),
        driver: Driver::Loaded("1".into()),
        zones: Vec::new(),
        gpus: vec![Gpu {
            index: GpuIndex(0),
            uuid: GpuUuid::parse(GPU).unwrap(),
            pci: PciAddress { domain: 0, bus: 1, device: 0, function: 0 },
            product: "P".to_owned(),
            memory: None,
            zone: None,
            cpus: berth_model::CpuSet::default(),
            memory_zone: None,
            nearest_zones: None,
            mig_enabled: None,
            health,
            detail: GpuDetail::default(),
        }],
        nics: Vec::new(),
        links: LinkMatrix::build(1, |_, _| berth_model::Link::default()),
        host: Host::default(),
        findings: Vec::new(),
        drifts: Vec::new(),
        refusals: Vec::new(),
        device_plugin: None,
    })
    .unwrap()
}

#[test]
fn what_the_last_report_says_of_xids_is_what_this_process_would_have_said() {
    let now = Instant::now();
    let ignored = BTreeSet::from(APPLICATION_XIDS);
    let silent = Health::Unhealthy("NVML: the GPU is lost".to_owned());
    for (xid, reads) in [(79, vec![Health::Healthy]), (94, vec![Health::Healthy]), (48, vec![silent, Health::Healthy])]
    {
        let mut first = marks(&[xid], now);
        let mut second = Marks::default();
        let said = judged(&mut first, reads[0].clone(), now);
        second.take_up(&report(said), &ignored, now);
        assert_eq!(first, second, "{xid}");
        for read in &reads {
            assert_eq!(judged(&mut first, read.clone(), now), judged(&mut second, read.clone(), now), "{xid}");
        }
    }
    for health in [
        Health::Healthy,
        Health::Unhealthy("NVML: the GPU is lost".to_owned()),
        Health::Unknown(format!("{}{}", xid::text(79), xid::OF_NO_CERTAIN_GPU)),
        // The operator changed the list meanwhile.
        Health::Unhealthy(xid::text(13)),
    ] {
        let mut marks = Marks::default();
        marks.take_up(&report(health.clone()), &ignored, now);
        assert_eq!(marks, Marks::default(), "{health:?}");
    }
}
