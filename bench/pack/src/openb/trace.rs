//! The two CSV forms: a node list (`sn,cpu_milli,memory_mib,gpu,model`) and a pod list (`name,cpu_milli,memory_mib,num_gpu,
//! gpu_milli,gpu_spec,...`), read into hosts and classes of equal pods.
//!
//! Source: the README of alibaba/clusterdata, cluster-trace-gpu-v2023. Checked: 2026-11-21 against 13 of its pod lists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use csv::StringRecord;

use super::{GPU_MILLI, GPUS_MAX};

/// Rows read of either file; the published ones have at most 12,000.
const ROWS_MAX: usize = 1_000_000;

/// A host as it is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// CPU in thousandths of a core.
    pub cpu_milli: i64,
    /// Memory.
    pub memory_mib: i64,
    /// GPUs, at most [`GPUS_MAX`].
    pub gpu_count: usize,
    /// Position in [`Trace::models`].
    pub model: usize,
}

/// What equal pods ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodClass {
    /// CPU in thousandths of a core.
    pub cpu_milli: i64,
    /// Memory.
    pub memory_mib: i64,
    /// GPUs.
    pub gpu_count: usize,
    /// Of each GPU; 1000 is all of it, and less only with one GPU.
    pub gpu_milli: i64,
    /// One bit per model that will do.
    pub models: u64,
}

impl PodClass {
    /// Milli-GPU over all its GPUs.
    #[must_use]
    pub fn demand_milli(&self) -> i64 {
        self.gpu_milli * i64::try_from(self.gpu_count).unwrap_or(0)
    }

    /// Whether it asks for a part of one GPU.
    #[must_use]
    pub fn is_share(&self) -> bool {
        self.gpu_count == 1 && self.gpu_milli < GPU_MILLI
    }

    /// Whether GPUs of this model will do.
    #[must_use]
    pub fn takes_model(&self, model: usize) -> bool {
        self.models >> model & 1 == 1
    }
}

/// Hosts, and pods by class in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The hosts, as listed.
    pub hosts: Vec<Capacity>,
    /// GPU models, sorted.
    pub models: Vec<String>,
    /// Classes of equal pods.
    pub classes: Vec<PodClass>,
    /// The class of every pod.
    pub pods: Vec<usize>,
}

impl Trace {
    /// Milli-GPU installed.
    #[must_use]
    pub fn installed_milli(&self) -> i64 {
        self.hosts.iter().map(|h| GPU_MILLI * i64::try_from(h.gpu_count).unwrap_or(0)).sum()
    }

    /// Milli-GPU that these arrivals ask for.
    #[must_use]
    pub fn asked_milli(&self, arrivals: &[usize]) -> i64 {
        arrivals.iter().map(|c| self.classes[*c].demand_milli()).sum()
    }
}

/// Reads a node list and a pod list.
///
/// # Errors
/// The file, the line and the column that cannot be read.
pub fn read(nodes: &Path, pods: &Path) -> Result<Trace> {
    let (hosts, models) = read_hosts(nodes).with_context(|| format!("{}", nodes.display()))?;
    let (classes, pods) = read_pods(pods, &models).with_context(|| format!("{}", pods.display()))?;
    Ok(Trace { hosts, models, classes, pods })
}

/// A row with its header, so that columns are found by name and errors can name the line.
struct Row<'a> {
    header: &'a StringRecord,
    record: &'a StringRecord,
}

impl<'a> Row<'a> {
    fn text(&self, column: &str) -> Option<&'a str> {
        let at = self.header.iter().position(|h| h == column)?;
        self.record.get(at)
    }

    fn number(&self, column: &str) -> Result<i64> {
        let text = self.text(column).with_context(|| format!("column {column} is missing"))?;
        let number: i64 = text.parse().with_context(|| format!("column {column}: {text:?} is not a number"))?;
        ensure!((0..=1 << 40).contains(&number), "column {column}: {number} is not in 0 to 2^40");
        Ok(number)
    }
}

fn rows(path: &Path) -> Result<(StringRecord, Vec<StringRecord>)> {
    let mut reader = csv::Reader::from_path(path)?;
    let header = reader.headers()?.clone();
    let records: Vec<StringRecord> = reader.records().take(ROWS_MAX + 1).collect::<Result<_, _>>()?;
    ensure!(records.len() <= ROWS_MAX, "more than {ROWS_MAX} rows");
    Ok((header, records))
}

fn at_line(record: &StringRecord) -> String {
    record.position().map_or_else(String::new, |p| format!("line {}", p.line()))
}

fn read_hosts(path: &Path) -> Result<(Vec<Capacity>, Vec<String>)> {
    let (header, records) = rows(path)?;
    let mut names = BTreeSet::new();
    for record in &records {
        let row = Row { header: &header, record };
        names.insert(row.text("model").context("column model is missing")?.to_owned());
    }
    let models: Vec<String> = names.into_iter().collect();
    ensure!(models.len() <= 64, "{} GPU models, at most 64", models.len());
    let host = |record: &StringRecord| {
        let row = Row { header: &header, record };
        let gpu_count = usize::try_from(row.number("gpu")?)?;
        ensure!(gpu_count <= GPUS_MAX, "column gpu: {gpu_count}, at most {GPUS_MAX}");
        let model = row.text("model").and_then(|m| models.iter().position(|k| k == m)).unwrap_or(0);
        Ok(Capacity { cpu_milli: row.number("cpu_milli")?, memory_mib: row.number("memory_mib")?, gpu_count, model })
    };
    let hosts = records.iter().map(|r| host(r).with_context(|| at_line(r))).collect::<Result<Vec<_>>>()?;
    ensure!(hosts.iter().any(|h| h.gpu_count > 0), "no node has a GPU");
    Ok((hosts, models))
}

fn read_pods(path: &Path, models: &[String]) -> Result<(Vec<PodClass>, Vec<usize>)> {
    let (header, mut records) = rows(path)?;
    // The protocol sorts by name before it draws, so that the order of the file does not matter.
    records.sort_by(|a, b| a.get(0).cmp(&b.get(0)));
    let mut known: BTreeMap<PodClass, usize> = BTreeMap::new();
    let mut pods = Vec::with_capacity(records.len());
    let mut classes = Vec::new();
    for record in &records {
        let class = pod_class(&Row { header: &header, record }, models).with_context(|| at_line(record))?;
        pods.push(*known.entry(class).or_insert_with(|| {
            classes.push(class);
            classes.len() - 1
        }));
    }
    if classes.iter().all(|c| c.gpu_count == 0) {
        bail!("no pod asks for a GPU");
    }
    Ok((classes, pods))
}

fn pod_class(row: &Row<'_>, models: &[String]) -> Result<PodClass> {
    let gpu_count = usize::try_from(row.number("num_gpu")?)?;
    ensure!(gpu_count <= GPUS_MAX, "column num_gpu: {gpu_count}, at most {GPUS_MAX}");
    let gpu_milli = if gpu_count == 0 { 0 } else { row.number("gpu_milli")?.min(GPU_MILLI) };
    ensure!(gpu_count == 0 || gpu_milli > 0, "column gpu_milli: 0 of a GPU");
    ensure!(gpu_count < 2 || gpu_milli == GPU_MILLI, "column gpu_milli: {gpu_milli} of {gpu_count} GPUs");
    let spec = row.text("gpu_spec").filter(|s| gpu_count > 0 && !s.is_empty());
    // Models that no node has are dropped: a pod that names only such fits nowhere.
    let bit = |name: &str| models.iter().position(|m| m == name).map_or(0, |at| 1_u64 << at);
    let models = spec.map_or(u64::MAX, |s| s.split('|').map(bit).fold(0, |all, one| all | one));
    let cpu_milli = row.number("cpu_milli")?;
    Ok(PodClass { cpu_milli, memory_mib: row.number("memory_mib")?, gpu_count, gpu_milli, models })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "sn,cpu_milli,memory_mib,gpu,model\nb,64000,262144,2,T4\na,96000,393216,8,G2\n";
    const PODS: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\np1,4000,8192,1,460,T4|X\np0,1000,1,0,0,\n\
        p2,8000,1,2,1000,\np3,8000,1,2,1000,\n";

    fn read_texts(nodes: &str, pods: &str) -> Result<Trace> {
        let dir = tempfile::tempdir()?;
        let (n, p) = (dir.path().join("nodes.csv"), dir.path().join("pods.csv"));
        std::fs::write(&n, nodes)?;
        std::fs::write(&p, pods)?;
        read(&n, &p)
    }

    #[test]
    fn equal_pods_are_one_class_and_models_are_bits() {
        let trace = read_texts(NODES, PODS).unwrap();
        assert_eq!(trace.models, ["G2", "T4"]);
        assert_eq!(trace.pods, [0, 1, 2, 2], "in the order of names: p0 is cpu-only");
        assert_eq!(trace.classes[1].models, 0b10, "X is no model of the cluster");
        assert_eq!(trace.installed_milli(), 10_000);
        assert_eq!(trace.asked_milli(&trace.pods), 4460);
    }

    #[test]
    fn what_cannot_be_read_names_file_line_and_column() {
        for (nodes, pods, said) in [
            (NODES, PODS.replace("460", "4x0"), "pods.csv: line 2: column gpu_milli: \"4x0\" is not a number"),
            (NODES, PODS.replace("num_gpu", "gpus"), "column num_gpu is missing"),
            (NODES, PODS.replace("2,1000", "2,500"), "column gpu_milli: 500 of 2 GPUs"),
            (NODES, PODS.replace("4000", "-4"), "column cpu_milli: -4 is not in 0"),
            ("sn,cpu_milli,memory_mib,gpu,model\nb,1,1,9,T4\n", PODS.to_owned(), "nodes.csv: line 2: column gpu: 9"),
        ] {
            let error = format!("{:#}", read_texts(nodes, &pods).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }
}
