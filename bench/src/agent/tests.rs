//! How the kernel's and strace's tables are read, the machine of the budget, and the form of what `agent` prints.

use berth_machine::Machine;

use super::*;
use crate::line::Line;

#[test]
fn times_are_read_after_a_name_that_holds_anything() {
    let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 900 0 3 0 17 5 0 0 20 0 6 0 1234 567";
    assert_eq!(idle::cpu_ticks(stat), Some(22));
    assert_eq!(idle::cpu_ticks("42 (berth-agent) S 1 42"), None);
}

#[test]
fn both_kinds_of_context_switches_count() {
    let status = "Name:\tberth-agent\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t30\n";
    assert_eq!(idle::context_switches(status), 42);
}

#[test]
fn a_row_of_strace_has_errors_or_none() {
    let table = "% time     seconds  usecs/call     calls    errors syscall\n\
        ------ ----------- ----------- --------- --------- ----------------\n \
        61.54    0.000104           0       120           epoll_wait\n \
        38.46    0.000065           5        13         2 futex\n\
        ------ ----------- ----------- --------- --------- ----------------\n\
        100.00    0.000169           1       133         2 total\n";
    let rows = BTreeMap::from([("epoll_wait".to_owned(), 120), ("futex".to_owned(), 13)]);
    assert_eq!(trace::parse(table), rows);
    assert_eq!(trace::parse(""), BTreeMap::new());
}

#[test]
fn the_machine_is_that_of_the_budget() {
    let machine = Machine::parse(&machine().unwrap()).unwrap();
    assert_eq!((machine.gpus.len(), machine.nics.len()), (8, 10));
}

#[test]
fn a_watch_of_no_time_is_refused() {
    let args = AgentArgs { seconds: 0, settle_seconds: 0 };
    assert!(run(&args).unwrap_err().to_string().contains("--seconds"));
}

#[test]
fn the_form_of_the_line_is_pinned() {
    let figures = Figures {
        options: serde_json::to_value(AgentArgs { seconds: 60, settle_seconds: 20 }).unwrap(),
        gpus: 8,
        nics: 10,
        memory: Memory { rss_kib: 2, anon_kib: 1 },
        threads: 4,
        idle: Idle {
            seconds: 60.5,
            cpu_ms: 30,
            cpu_percent: 0.05,
            context_switches_per_minute: 90.0,
            log_lines: 0,
            nvml_calls_per_minute: BTreeMap::from([("nvmlEventSetWait_v2".to_owned(), 12.0)]),
        },
        system_calls: Some(SystemCalls {
            seconds: 60.0,
            per_minute: 100.0,
            by_name: BTreeMap::from([("poll".to_owned(), 100.0)]),
        }),
    };
    let text = Line::of("agent", figures).text().unwrap();
    let (_, result) = text.split_once("\"result\":").unwrap();
    let pinned = r#"{"options":{"seconds":60,"settle_seconds":20},"gpus":8,"nics":10,"memory":{"rss_kib":2,"anon_kib":1},"threads":4,"idle":{"seconds":60.5,"cpu_ms":30,"cpu_percent":0.05,"context_switches_per_minute":90.0,"log_lines":0,"nvml_calls_per_minute":{"nvmlEventSetWait_v2":12.0}},"system_calls":{"seconds":60.0,"per_minute":100.0,"by_name":{"poll":100.0}}}}"#;
    assert_eq!(result, pinned);
    let read: Line<Figures> = serde_json::from_str(&text).unwrap();
    assert_eq!(read.result.threads, 4);
}
