//! Owns the program of the tests' pods: says as one line of JSON which devices its container shows it, then waits for its end, or ends
//! where its argument is `once`. Of the standard library alone, because it is compiled by itself, without a loader to find in its image.

use std::io::Write;

/// What device plugins and leases say to a container.
const VARIABLES: [&str; 2] = ["BERTH_DEVICES", "NVIDIA_VISIBLE_DEVICES"];

/// Where a driver's device nodes are.
const FOLDERS: [&str; 2] = ["/dev", "/dev/nvidia-caps"];

fn main() {
    let mut fields: Vec<String> = Vec::new();
    for name in VARIABLES {
        if let Ok(value) = std::env::var(name) {
            fields.push(format!("{}:{}", quoted(name), quoted(&value)));
        }
    }
    let mut nodes: Vec<String> = FOLDERS.iter().flat_map(|folder| nodes_in(folder)).collect();
    nodes.sort();
    let nodes: Vec<String> = nodes.iter().map(|node| quoted(node)).collect();
    fields.push(format!("\"nodes\":[{}]", nodes.join(",")));
    let mut out = std::io::stdout();
    let said = writeln!(out, "{{{}}}", fields.join(",")).and_then(|()| out.flush());
    if said.is_err() {
        std::process::exit(1);
    }
    if std::env::args().any(|argument| argument == "once") {
        return;
    }
    // Waits for a signal that ends it: it has none of its own handlers, so it must not be the first process of its namespace.
    loop {
        std::thread::park();
    }
}

fn nodes_in(folder: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("nvidia") && name != "nvidia-caps").map(|name| format!("{folder}/{name}")).collect()
}

/// As JSON has it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
