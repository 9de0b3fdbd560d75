//! What the process itself uses, under the names that Prometheus' own clients give it. Linux only: elsewhere nothing
//! is told.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::Described;

/// In what /proc counts processor time, on every architecture that weir is built for.
const TICKS_PER_S: f64 = 100.0;

pub(super) const DESCRIBED: [Described; 2] = [CPU, MEMORY];

const CPU: Described = Described {
    name: Cow::Borrowed("process_cpu_seconds_total"),
    kind: "counter",
    labels: Vec::new(),
    help: Cow::Borrowed("Processor time used, by user and system, in seconds."),
};
const MEMORY: Described = Described {
    name: Cow::Borrowed("process_resident_memory_bytes"),
    kind: "gauge",
    labels: Vec::new(),
    help: Cow::Borrowed("Memory that is resident, in bytes."),
};

/// The series, in Prometheus' text format.
pub(super) fn render() -> String {
    let mut text = String::new();
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let mut tell = |Described { name, kind, help, .. }: Described, value: Option<f64>| {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n").ok();
        }
    };
    tell(CPU, cpu_s(&read("stat")));
    tell(MEMORY, resident_bytes(&read("status")));
    text
}

/// The name in the second field may hold anything but is closed by the last parenthesis.
fn cpu_s(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_S)
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 900 0 0 0 150 25 0 0 20 0 9 0 100 0 0";
        assert_eq!(cpu_s(stat), Some(1.75));
        assert_eq!(resident_bytes("Name:\tweir\nVmRSS:\t   2048 kB\n"), Some(2_097_152.0));
        assert_eq!((cpu_s(""), resident_bytes("")), (None, None));
    }
}
