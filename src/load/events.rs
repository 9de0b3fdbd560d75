//! The events of a run: each follows from its number and the seed, so nothing is kept of them, and whoever needs one
//! again makes it again.

use std::time::Duration;

use uuid::Uuid;

use super::plan;
use super::zipf::Zipf;

/// An event that is sent again was first sent at most so many events before.
const REPEATED_WITHIN: u64 = 2_000;
/// How many earlier events are tried for one that can be sent again.
const TRIES_MAX: u64 = 8;
/// Text that contents are cut from.
const TEXT_BYTES: usize = 1 << 20;

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A chat message like any other.
    Good,
    /// No JSON: nothing can be read of it but the id in its header.
    Malformed,
    /// A number that the column cannot hold.
    Unfit,
    /// This earlier one, sent again byte for byte.
    Repeat(u64),
}

impl Kind {
    pub(super) fn is_poison(self) -> bool {
        matches!(self, Self::Malformed | Self::Unfit)
    }
}

/// Makes events.
pub(super) struct Events {
    /// The first 48 bits of every id, new with every run.
    run: [u8; 6],
    seed: u64,
    zipf: Zipf,
    conversations: u32,
    size: plan::Size,
    /// Below it a random number means an event that is sent again …
    repeated_below: u64,
    /// … and from there to below this one, poison.
    poison_below: u64,
    /// Types with the random number below which they are meant.
    types: Vec<(u64, String)>,
    text: String,
}

/// An event ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) key: String,
    pub(super) id: String,
    pub(super) value: String,
}

impl Events {
    pub(super) fn new(plan: &plan::Events, seed: u64) -> Self {
        let mut run = [0; 6];
        run.copy_from_slice(&Uuid::new_v4().as_bytes()[..6]);
        let total: f64 = plan.types.values().sum();
        let mut sum = 0.0;
        let types = plan.types.iter().map(|(name, weight)| {
            sum += weight / total;
            (below(sum), name.clone())
        });
        Self {
            run,
            seed,
            zipf: Zipf::new(plan.conversations, plan.zipf),
            conversations: plan.conversations,
            size: plan.size,
            repeated_below: below(plan.duplicates),
            poison_below: below(plan.duplicates + plan.poison),
            types: types.collect(),
            text: text(plan.size.max.min(TEXT_BYTES)),
        }
    }

    /// A random number of an event, for one purpose.
    fn dice(&self, event: u64, purpose: u64) -> u64 {
        mix(mix(self.seed ^ purpose.wrapping_mul(0x9E37_79B9)) ^ event)
    }

    pub(super) fn kind(&self, event: u64) -> Kind {
        let dice = self.dice(event, 1);
        match () {
            () if dice >= self.poison_below => Kind::Good,
            () if dice >= self.repeated_below => self.poison(event),
            () => self.earlier(event).map_or(Kind::Good, Kind::Repeat),
        }
    }

    fn poison(&self, event: u64) -> Kind {
        if self.dice(event, 2).is_multiple_of(2) { Kind::Malformed } else { Kind::Unfit }
    }

    /// A good event shortly before.
    fn earlier(&self, event: u64) -> Option<u64> {
        let within = REPEATED_WITHIN.min(event);
        let tries = (0..TRIES_MAX).filter(|_| within > 0);
        let candidates = tries.map(|n| event - 1 - self.dice(event, 10 + n) % within);
        candidates.into_iter().find(|earlier| self.dice(*earlier, 1) >= self.poison_below)
    }

    /// The event whose id and bytes it has.
    pub(super) fn original(&self, event: u64) -> u64 {
        match self.kind(event) {
            Kind::Repeat(of) => of,
            _ => event,
        }
    }

    /// Which of so many producers sends it: all events of a conversation go through one.
    pub(super) fn producer(&self, event: u64, producers: usize) -> usize {
        let conversation = self.conversation(self.original(event));
        usize::try_from(mix(u64::from(conversation)) % producers as u64).unwrap_or(0)
    }

    fn conversation(&self, original: u64) -> u32 {
        self.zipf.rank(self.dice(original, 3))
    }

    /// A UUID, which fits columns of text and of UUIDs alike; version 8, "custom".
    fn id(&self, event: u64) -> String {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&self.run);
        bytes[6] = 0x80;
        bytes[8] = 0x80;
        bytes[9..].copy_from_slice(&event.to_be_bytes()[1..]);
        Uuid::from_bytes(bytes).to_string()
    }

    /// The number of an event of this run by its id.
    pub(super) fn number(&self, id: &str) -> Option<u64> {
        let id = id.parse::<Uuid>().ok()?;
        let (run, number) = id.as_bytes().split_at(9);
        let is_ours = run[..6] == self.run && run[6..] == [0x80, 0, 0x80];
        is_ours.then(|| number.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    /// Makes an event that is no repeat, as of its intended time.
    pub(super) fn make(&self, original: u64, since_1970: Duration) -> Made {
        let conversation = u64::from(self.conversation(original));
        let pair = (conversation + 1, conversation + 1 + u64::from(self.conversations));
        let dice = self.dice(original, 4);
        let (from, to) = if dice.is_multiple_of(2) { pair } else { (pair.1, pair.0) };
        let key = crate::payload::conversation_of_two(&from.to_string(), &to.to_string());
        let id = self.id(original);
        let at_ms = since_1970.as_millis();
        let of_type = self.dice(original, 5);
        let kind = self.types.iter().find(|(below, _)| of_type < *below).or(self.types.last());
        let kind = kind.map_or("new_message", |(_, name)| name);
        let made = self.kind(original);
        let message_type = if made == Kind::Unfit { 1_i64 << 40 } else { 1 };
        let head = format!(
            "{{\"type\":\"{kind}\",\"message\":{{\"message_id\":\"{id}\",\"from\":{from},\"to\":{to},\"content\":\""
        );
        let tail = format!("\",\"message_type\":{message_type},\"timestamp\":{at_ms}}},\"timestamp\":{at_ms}}}");
        let value = match made {
            Kind::Malformed => "{\"type\":\"new_message\",\"message\":{\"from\":".to_owned(),
            _ => head.clone() + self.content(dice, head.len() + tail.len()) + &tail,
        };
        Made { key, id, value }
    }

    /// Text that fills an event up to its size.
    fn content(&self, dice: u64, envelope_bytes: usize) -> &str {
        let sizes = (self.size.max - self.size.min + 1) as u64;
        let size = self.size.min + usize::try_from((dice >> 8) % sizes).unwrap_or(0);
        let length = size.saturating_sub(envelope_bytes);
        let starts = (self.text.len() - length) as u64 + 1;
        let start = usize::try_from((dice >> 16) % starts).unwrap_or(0);
        &self.text[start..start + length]
    }
}

/// The random number below which lies this share of all.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is from 0 to 1, and as saturates")]
fn below(share: f64) -> u64 {
    (share * 2.0_f64.powi(64)) as u64
}

/// Words, twice as many bytes as the longest content, so that contents differ.
fn text(longest: usize) -> String {
    const WORDS: [&str; 16] = [
        "water", "over", "the", "weir", "runs", "slower", "than", "before", "river", "level", "and", "gauge", "below",
        "rain", "holds", "still",
    ];
    let mut text = String::with_capacity(longest * 2 + 4_096);
    for n in 0.. {
        if text.len() >= longest * 2 + 4_000 {
            break;
        }
        text.push_str(WORDS[usize::try_from(mix(n) % 16).unwrap_or(0)]);
        text.push(' ');
    }
    text
}

/// Spreads a number over all bits, the same each time (splitmix64).
pub(super) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(change: impl FnOnce(&mut plan::Events)) -> Events {
        let mut plan = plan::Events::default();
        change(&mut plan);
        Events::new(&plan, 7)
    }

    fn make(events: &Events, event: u64) -> Made {
        events.make(event, Duration::from_millis(1_700_000_000_000))
    }

    #[test]
    fn an_id_tells_the_number_of_its_run_only() {
        let events = events(|_| ());
        for number in [0, 77, 123_456_789_012] {
            assert_eq!(events.number(&events.id(number)), Some(number));
        }
        assert_eq!(self::events(|_| ()).number(&events.id(77)), None);
        assert_eq!(events.number("m-1"), None);
    }

    #[test]
    fn repeats_and_poison_come_in_their_shares() {
        let events = events(|plan| (plan.duplicates, plan.poison) = (0.1, 0.01));
        let kinds: Vec<Kind> = (0..200_000).map(|event| events.kind(event)).collect();
        let share = |is: &dyn Fn(&Kind) -> bool| kinds.iter().filter(|kind| is(kind)).count() as f64 / 200_000.0;
        let repeats = share(&|kind| matches!(kind, Kind::Repeat(_)));
        assert!((repeats - 0.1).abs() < 0.005, "{repeats}");
        for kind in [Kind::Malformed, Kind::Unfit] {
            let poison = share(&|found| *found == kind);
            assert!((poison - 0.005).abs() < 0.001, "{kind:?}: {poison}");
        }
        for (event, kind) in kinds.iter().enumerate() {
            if let Kind::Repeat(of) = kind {
                assert_eq!(kinds[usize::try_from(*of).unwrap()], Kind::Good, "{event} repeats {of}");
                assert!(*of < event as u64 && event as u64 - of <= REPEATED_WITHIN);
                assert_eq!(events.producer(event as u64, 5), events.producer(*of, 5));
            }
        }
    }

    #[test]
    fn good_events_are_chat_messages_of_their_size_and_poison_is_none_that_fits() {
        let events = events(|plan| {
            (plan.poison, plan.size) = (0.2, plan::Size { min: 300, max: 400 });
            plan.types = [("new_message".to_owned(), 1.0), ("edited".to_owned(), 1.0)].into();
        });
        let (mut types, mut sizes) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        for event in 0..2_000 {
            let made = make(&events, event);
            let read = serde_json::from_str::<crate::payload::MessageEvent>(&made.value);
            match events.kind(event) {
                Kind::Good => {
                    let read = read.unwrap();
                    assert_eq!(read.conversation(), made.key);
                    types.insert(read.r#type);
                    sizes.insert(made.value.len());
                }
                kind => assert!(read.is_err() && kind.is_poison()),
            }
        }
        assert_eq!(types.len(), 2);
        assert_eq!((sizes.first(), sizes.last()), (Some(&300), Some(&400)));
    }

    #[test]
    fn a_conversation_has_one_key_and_one_producer() {
        let events = events(|plan| plan.conversations = 20);
        let mut producers = std::collections::BTreeMap::new();
        for event in 0..5_000 {
            let producer = events.producer(event, 3);
            assert_eq!(*producers.entry(make(&events, event).key).or_insert(producer), producer);
        }
        assert_eq!(producers.len(), 20);
    }
}
