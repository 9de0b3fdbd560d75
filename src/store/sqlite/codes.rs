//! What SQLite's primary result codes ask for (<https://www.sqlite.org/rescode.html>).

use crate::store::Fault;

/// The primary code of an extended one: its low byte.
pub(super) fn primary(code: &str) -> u32 {
    code.parse::<u32>().map_or(0, |code| code & 0xff)
}

/// What an operator can do about it.
pub(super) fn advice(code: u32) -> &'static str {
    match code {
        1 => ": run `weir migrate`, or make the table as the pool's mapping expects it",
        3 | 8 | 23 => ": the file and its folder must be writable for the user that weir runs as",
        5 | 6 => ": another process has locked it: try again, or end what keeps the file open",
        10 => ": the disk may be full or broken: look at the file system that holds the database",
        11 | 26 => ": the file in store.url is no SQLite database, or is damaged",
        13 => ": make room on the disk that holds the database",
        14 => {
            ": run `weir migrate`, which makes the file in store.url; the file and its folder must be writable for the user that weir runs as"
        }
        _ => "",
    }
}

pub(super) fn classify(code: u32) -> Fault {
    match code {
        // No memory, I/O error, disk full.
        7 | 10 | 13 => Fault::Outage,
        // Another connection has the lock, or a transaction was ended for it.
        4 | 5 | 6 | 15 | 17 => Fault::Busy,
        9 => Fault::TooSlow,
        // Too big, a broken constraint, a wrong type, out of range.
        18 | 19 | 20 | 25 => Fault::Reject,
        11 | 26 => Fault::Fatal,
        // No such table, no permission, no file, read only.
        _ => Fault::Hold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ask_for_what_their_cause_needs() {
        let cases = [
            ("13", Fault::Outage),
            ("778", Fault::Outage),
            ("5", Fault::Busy),
            ("517", Fault::Busy),
            ("275", Fault::Reject),
            ("2067", Fault::Reject),
            ("26", Fault::Fatal),
            ("1", Fault::Hold),
            ("14", Fault::Hold),
            ("1032", Fault::Hold),
            ("", Fault::Hold),
        ];
        for (code, fault) in cases {
            assert_eq!(classify(primary(code)), fault, "{code}");
        }
    }
}
