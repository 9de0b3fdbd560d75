//! The demo's events: each made of its number alone, so that the audit needs one bit an event and no list of them.

use std::time::{SystemTime, UNIX_EPOCH};

/// One event in so many is poison: it can never be persisted.
const POISON_EVERY: u64 = 1_000;
/// One event in so many is sent twice.
const REPEATED_EVERY: u64 = 20;
/// Events between the first and the second sending of one, at most.
pub(super) const REPEATED_WITHIN: u64 = 2_000;
const USERS: u64 = 1_000;

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A chat message like any other.
    Good,
    /// No JSON: nothing can be read of it but the id in its header.
    Malformed,
    /// A number that the column cannot hold.
    Unfit,
}

/// The events of one run.
#[derive(Debug, Clone)]
pub(super) struct Events {
    run: String,
}

/// An event ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) number: u64,
    pub(super) id: String,
    pub(super) key: String,
    pub(super) value: String,
    /// The minute it counts for, since 1970.
    pub(super) minute: i64,
    pub(super) user: u64,
}

impl Events {
    pub(super) fn new(run: &str) -> Self {
        Self { run: run.to_owned() }
    }

    pub(super) fn kind(number: u64) -> Kind {
        match mix(number) % (2 * POISON_EVERY) {
            0 => Kind::Malformed,
            1 => Kind::Unfit,
            _ => Kind::Good,
        }
    }

    /// After how many later events this one is sent again, if it is.
    pub(super) fn repeated_after(number: u64) -> Option<u64> {
        let dice = mix(number ^ 0xD1CE);
        let is_repeated = Self::kind(number) == Kind::Good && dice.is_multiple_of(REPEATED_EVERY);
        is_repeated.then_some(1 + (dice >> 32) % REPEATED_WITHIN)
    }

    pub(super) fn id(&self, number: u64) -> String {
        format!("{}-{number:012}", self.run)
    }

    /// The number of an event of this run by its id.
    pub(super) fn number(&self, id: &str) -> Option<u64> {
        id.strip_prefix(&self.run)?.strip_prefix('-')?.parse().ok()
    }

    pub(super) fn make(&self, number: u64) -> Made {
        let dice = mix(number ^ 0xCAFE);
        let (from, to) = (dice % USERS, (dice >> 20) % USERS);
        let at_ms = now_ms();
        let id = self.id(number);
        let message_type = if Self::kind(number) == Kind::Unfit { 1_i64 << 40 } else { 1 };
        let value = match Self::kind(number) {
            Kind::Malformed => "{\"type\":\"new_message\",\"message\":{\"from\":".to_owned(),
            Kind::Good | Kind::Unfit => format!(
                "{{\"type\":\"new_message\",\"message\":{{\"message_id\":\"{id}\",\"from\":{from},\"to\":{to},\
                 \"content\":\"{}\",\"message_type\":{message_type},\"timestamp\":{at_ms}}},\"timestamp\":{at_ms}}}",
                text(dice)
            ),
        };
        let key = crate::payload::conversation_of_two(&from.to_string(), &to.to_string());
        Made { number, id, key, value, minute: at_ms.div_euclid(60_000), user: from }
    }
}

/// A message of a usual length: about 330 bytes an event.
fn text(dice: u64) -> String {
    const WORDS: [&str; 8] = ["water", "over", "the", "weir", "runs", "slower", "than", "before"];
    let mut text = String::with_capacity(180);
    for n in 0..28 {
        text.push_str(WORDS[((dice >> (n * 2)) % 8) as usize]);
        text.push(' ');
    }
    text
}

/// Spreads a number over all bits, the same each time (splitmix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_the_number_of_its_run_only() {
        let events = Events::new("demo-ab12");
        assert_eq!(events.number(&events.id(77)), Some(77));
        assert_eq!(Events::new("demo-cd34").number(&events.id(77)), None);
        assert_eq!(events.number("demo-ab12-x"), None);
    }

    #[test]
    fn the_load_has_repeats_and_poison_in_their_parts() {
        let numbers = 0..200_000;
        let poison = numbers.clone().filter(|n| Events::kind(*n) != Kind::Good).count();
        let repeats: Vec<u64> = numbers.filter_map(Events::repeated_after).collect();
        assert!((150..250).contains(&poison), "{poison}");
        assert!((9_000..11_000).contains(&repeats.len()), "{}", repeats.len());
        assert!(repeats.iter().all(|after| (1..=REPEATED_WITHIN).contains(after)));
    }

    #[test]
    fn good_events_are_chat_messages_and_poison_is_none_that_fits() {
        let events = Events::new("r");
        let of = |kind| events.make((0..).find(|n| Events::kind(*n) == kind).unwrap());
        let good: crate::payload::MessageEvent = serde_json::from_str(&of(Kind::Good).value).unwrap();
        assert_eq!(good.conversation(), of(Kind::Good).key);
        assert!((250..400).contains(&of(Kind::Good).value.len()), "{}", of(Kind::Good).value.len());
        assert!(serde_json::from_str::<serde_json::Value>(&of(Kind::Malformed).value).is_err());
        assert!(serde_json::from_str::<crate::payload::MessageEvent>(&of(Kind::Unfit).value).is_err());
    }
}
