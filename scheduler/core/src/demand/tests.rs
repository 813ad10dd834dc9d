//! Claims about what is read of a pod.

use super::*;

fn container(name: &str, gpus: &str, is_sidecar: bool) -> ContainerRequest {
    let pairs = [("nvidia.com/gpu", gpus), ("cpu", "500m"), ("memory", "1Gi")];
    let requests = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    ContainerRequest { name: name.to_owned(), requests, is_sidecar }
}

#[test]
fn the_effective_request_is_the_peak_of_init_and_the_sum_of_app_containers() {
    let pod = PodRequest {
        containers: vec![container("a", "2", false), container("b", "1", false)],
        init_containers: vec![container("side", "1", true), container("init", "4", false)],
        ..PodRequest::default()
    };
    let demand = Demand::parse(&pod, &Policy::default()).unwrap();
    assert_eq!(demand.shape.gpu_count, 5, "sidecar 1 + init 4 is more than 1 + 2 + 1");
    assert_eq!(demand.shape.cpu_milli, 1500);
    assert_eq!(demand.shape.memory, MiB(3 * 1024));
    let names: Vec<_> = demand.containers.iter().map(|c| (c.name.as_str(), c.device_count, c.reuses)).collect();
    assert_eq!(names, [("side", 1, false), ("init", 4, true), ("a", 2, false), ("b", 1, false)]);
}

#[test]
fn what_cannot_be_read_names_container_and_resource() {
    for (gpus, said) in [("many", "\"many\" is not a quantity"), ("33", "at most 32 GPUs")] {
        let pod = PodRequest { containers: vec![container("a", gpus, false)], ..PodRequest::default() };
        let unfit = Demand::parse(&pod, &Policy::default()).unwrap_err();
        assert_eq!(unfit.reason, Reason::BadWish);
        assert!(unfit.detail.contains("spec.containers[a]") && unfit.detail.contains(said), "{}", unfit.detail);
    }
}

#[test]
fn a_class_that_the_policy_does_not_know_is_refused_with_the_known_ones() {
    let annotations = [("berth.dev/class".to_owned(), "trainig".to_owned())].into();
    let pod = PodRequest { annotations, ..PodRequest::default() };
    let unfit = Demand::parse(&pod, &Policy::default()).unwrap_err();
    assert!(unfit.detail.contains("\"trainig\"") && unfit.detail.contains("training"), "{}", unfit.detail);
}
