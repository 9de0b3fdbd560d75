//! W3C trace context in the headers of events (<https://www.w3.org/TR/trace-context/>).

use std::str::FromStr as _;

use bytes::Bytes;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The header that names an event's trace and the span that sent it.
pub const TRACEPARENT: &str = "traceparent";
/// The header with what the systems on its way keep there.
pub const TRACESTATE: &str = "tracestate";

/// The length of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// The flag of the last field that says that the trace is recorded.
const SAMPLED: u8 = 1;

/// Whether an event has a trace, as far as its headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It has none, or none that can be read.
    None,
    /// Somebody decided that it is not recorded.
    Unsampled,
    /// The span that sent it.
    Sampled(SpanContext),
}

/// What an event's headers say of its trace when it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Headers {
    traceparent: String,
    tracestate: Option<String>,
}

impl Origin {
    /// Reads both headers; the second one only where the first says that the trace is recorded.
    pub fn of<'a>(traceparent: Option<&[u8]>, tracestate: impl FnOnce() -> Option<&'a [u8]>) -> Self {
        let Some(fields) = traceparent.and_then(Fields::of) else { return Self::None };
        if !fields.is_sampled() {
            return Self::Unsampled;
        }
        let Some((trace, span)) = fields.ids() else { return Self::None };
        // A state that cannot be read is dropped, the trace is not: so the recommendation has it.
        let state = tracestate().and_then(state);
        let flags = TraceFlags::default().with_sampled(true);
        Self::Sampled(SpanContext::new(trace, span, flags, true, state.unwrap_or_default()))
    }
}

/// A list of `key=value`; the SDK by itself takes members without a key.
fn state(header: &[u8]) -> Option<TraceState> {
    let text = std::str::from_utf8(header).ok()?;
    let is_member =
        |member: &str| member.split_once('=').is_some_and(|(key, value)| !key.is_empty() && !value.is_empty());
    let mut members = text.split(',').map(str::trim).filter(|member| !member.is_empty());
    members.all(is_member).then(|| TraceState::from_str(text).ok())?
}

/// A header's fields, looked at but not read: most are of traces that are not recorded.
struct Fields<'a> {
    trace: &'a [u8],
    span: &'a [u8],
    flags: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Those of a header that is whole. Later versions may append to it.
    fn of(header: &'a [u8]) -> Option<Self> {
        let (head, rest) = header.split_at_checked(LENGTH)?;
        let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let [version, trace, span, flags] = [&head[..2], &head[3..35], &head[36..52], &head[53..]];
        let is_whole = match version {
            b"ff" => false,
            b"00" => rest.is_empty(),
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let has_dashes = [head[2], head[35], head[52]] == [b'-'; 3];
        let are_hex = [version, trace, span, flags].into_iter().all(is_hex);
        let are_ids = [trace, span].into_iter().all(|id| id.iter().any(|digit| *digit != b'0'));
        (is_whole && has_dashes && are_hex && are_ids).then_some(Self { trace, span, flags })
    }

    fn is_sampled(&self) -> bool {
        let flags = std::str::from_utf8(self.flags).ok().and_then(|flags| u8::from_str_radix(flags, 16).ok());
        flags.is_some_and(|flags| flags & SAMPLED != 0)
    }

    fn ids(&self) -> Option<(TraceId, SpanId)> {
        let text = |part| std::str::from_utf8(part).ok();
        Some((TraceId::from_hex(text(self.trace)?).ok()?, SpanId::from_hex(text(self.span)?).ok()?))
    }
}

impl Headers {
    pub(super) fn of(context: &SpanContext) -> Self {
        let flags = context.trace_flags().to_u8() & SAMPLED;
        let traceparent = format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id());
        let state = context.trace_state().header();
        Self { traceparent, tracestate: (!state.is_empty()).then_some(state) }
    }

    /// With their names.
    pub(crate) fn into_named(self) -> Vec<(&'static str, Bytes)> {
        let state = self.tracestate.map(|state| (TRACESTATE, state.into()));
        [(TRACEPARENT, self.traceparent.into())].into_iter().chain(state).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn origin(parent: &str) -> Origin {
        Origin::of(Some(parent.as_bytes()), || None)
    }

    #[test]
    fn what_is_read_is_written_the_same() {
        let Origin::Sampled(context) = Origin::of(Some(PARENT.as_bytes()), || Some(b"vendor=a:1,other=2")) else {
            panic!("it is sampled");
        };
        assert!(context.is_remote());
        let headers = Headers::of(&context);
        assert_eq!(headers.traceparent, PARENT);
        assert_eq!(headers.tracestate.as_deref(), Some("vendor=a:1,other=2"));
    }

    #[test]
    fn the_state_is_asked_for_only_where_the_trace_is_recorded() {
        let unsampled = PARENT.replace("-01", "-00");
        assert_eq!(Origin::of(Some(unsampled.as_bytes()), || panic!("asked")), Origin::Unsampled);
        assert_eq!(Origin::of(None, || panic!("asked")), Origin::None);
    }

    #[test]
    fn a_state_that_cannot_be_read_leaves_the_trace() {
        for state in [&b"\xff"[..], b"a", b"=,,="] {
            let Origin::Sampled(context) = Origin::of(Some(PARENT.as_bytes()), || Some(state)) else {
                panic!("it is sampled");
            };
            assert_eq!(Headers::of(&context).tracestate, None);
        }
    }

    #[test]
    fn later_versions_are_read_and_what_is_no_context_is_none() {
        assert!(matches!(origin(&PARENT.replace("00-0a", "01-0a")), Origin::Sampled(_)));
        assert!(matches!(origin(&format!("{}-more", PARENT.replace("00-0a", "cc-0a"))), Origin::Sampled(_)));
        assert!(matches!(origin(&PARENT.replace("-01", "-ff")), Origin::Sampled(_)));
        for none in [
            "",
            "00",
            &PARENT[..54],
            &format!("{PARENT}-more"),
            &PARENT.replace("00-0a", "ff-0a"),
            &PARENT.replace('b', "B"),
            &PARENT.replace('-', "_"),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
            &format!("00-{}-b7ad6b7169203331-01", "\u{e9}".repeat(16)),
        ] {
            assert_eq!(origin(none), Origin::None, "{none}");
        }
    }
}
