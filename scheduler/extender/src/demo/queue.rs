//! The demo's pods: what a day on a mixed cluster brings.

use serde_json::{Value, json};

/// A pod of the demo.
#[derive(Debug, Clone)]
pub(super) struct DemoPod {
    pub(super) name: String,
    pub(super) gpu_count: u32,
    pub(super) wishes: Vec<(&'static str, &'static str)>,
}

impl DemoPod {
    pub(super) fn uid(&self) -> String {
        format!("uid-of-{}", self.name)
    }

    /// The pod as kube-scheduler sends it.
    pub(super) fn object(&self) -> Value {
        let annotations: Value = self.wishes.iter().map(|(k, v)| (format!("berth.dev/{k}"), json!(v))).collect();
        let cpu = (self.gpu_count * 6).to_string();
        let memory = format!("{}Gi", self.gpu_count * 48);
        let resources = json!({
            "requests": {"cpu": cpu, "memory": memory, "nvidia.com/gpu": self.gpu_count.to_string()},
            "limits": {"nvidia.com/gpu": self.gpu_count.to_string()},
        });
        json!({
            "metadata": {"name": self.name, "namespace": "demo", "uid": self.uid(), "annotations": annotations},
            "spec": {"schedulerName": "berth", "containers": [{"name": "main", "resources": resources}]},
            "status": {"phase": "Pending"},
        })
    }

    /// What the pod asks for, in few words.
    pub(super) fn asks(&self) -> String {
        let wishes: Vec<String> = self.wishes.iter().map(|(k, v)| format!("{k}={v}")).collect();
        format!("{} {}", self.gpu_count, wishes.join(" ")).trim_end().to_owned()
    }
}

/// Name, how many, GPUs, wishes.
type Batch = (&'static str, u32, u32, &'static [(&'static str, &'static str)]);

const BATCHES: [Batch; 13] = [
    ("notebook", 3, 1, &[("class", "notebook")]),
    ("pretrain", 1, 8, &[("class", "training"), ("link", "nvlink")]),
    ("serve", 6, 1, &[("class", "inference")]),
    ("finetune", 3, 2, &[("class", "training")]),
    ("bert", 1, 4, &[("link", "nvlink"), ("gpu-product", "*V100*")]),
    ("gdr", 1, 4, &[("rail", "required"), ("link", "nvlink")]),
    ("bridge", 2, 2, &[("link", "nvlink"), ("gpu-product", "*A100*")]),
    ("embed", 2, 1, &[("gpu-memory", "80Gi")]),
    ("halo", 2, 2, &[("link", "pix")]),
    ("onezone", 1, 3, &[("zone", "required")]),
    ("picky", 1, 1, &[("gpu-product", "*P100*,*V100*")]),
    ("sweep", 8, 1, &[]),
    ("pretrain-2", 1, 8, &[("class", "training"), ("link", "nvlink")]),
];

/// The queue, in order of arrival.
pub(super) fn pods() -> Vec<DemoPod> {
    let mut pods = Vec::new();
    for (name, count, gpu_count, wishes) in BATCHES {
        for i in 0..count {
            let name = if count > 1 { format!("{name}-{i}") } else { name.to_owned() };
            pods.push(DemoPod { name, gpu_count, wishes: wishes.to_vec() });
        }
    }
    pods
}
