//! W3C trace context: which trace a message or a record belongs to.

use std::fmt;

use crate::runtime;

/// Bytes of its binary form.
pub(crate) const BINARY_BYTES: usize = 25;

/// Of the flags, those that version 00 knows: sampled, and random trace id.
const KNOWN_FLAGS: u8 = 0b11;

/// A span of a trace. Source: W3C Recommendation "Trace Context", section 3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    pub(crate) flags: u8,
}

impl TraceContext {
    /// Begins a trace.
    pub fn start() -> Self {
        Self {
            trace: runtime::random_nonzero_u128(),
            span: runtime::random_nonzero_u64(),
            flags: KNOWN_FLAGS,
        }
    }

    /// A new span of the same trace.
    pub fn child(self) -> Self {
        Self {
            span: runtime::random_nonzero_u64(),
            ..self
        }
    }

    /// Reads a `traceparent`; `None` for one that is not well-formed, which is then ignored, as the recommendation asks.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, '-');
        let version = hex(parts.next()?, 2)?;
        let (trace, span) = (hex(parts.next()?, 32)?, hex(parts.next()?, 16)?);
        let rest = parts.next()?;
        // Later versions may have more behind the flags.
        let flags = match rest.split_once('-') {
            Some((flags, _)) if version != 0 => flags,
            Some(_) => return None,
            None => rest,
        };
        let flags = hex(flags, 2)?;
        (version != 0xff && trace != 0 && span != 0).then_some(Self {
            trace,
            span: u64::try_from(span).ok()?,
            flags: u8::try_from(flags).ok()? & KNOWN_FLAGS,
        })
    }

    /// As records carry it: trace id, span id and flags, big-endian.
    pub(crate) fn to_bytes(self) -> [u8; BINARY_BYTES] {
        let mut bytes = [0; BINARY_BYTES];
        bytes[..16].copy_from_slice(&self.trace.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.span.to_be_bytes());
        bytes[24] = self.flags;
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote; `None` where an id is zero.
    pub(crate) fn from_bytes(bytes: &[u8; BINARY_BYTES]) -> Option<Self> {
        let (trace, rest) = bytes.split_first_chunk()?;
        let (span, rest) = rest.split_first_chunk()?;
        let (trace, span) = (u128::from_be_bytes(*trace), u64::from_be_bytes(*span));
        (trace != 0 && span != 0).then_some(Self {
            trace,
            span,
            flags: rest.first()? & KNOWN_FLAGS,
        })
    }

    /// 32 hex digits, for logs.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

fn hex(text: &str, digits: usize) -> Option<u128> {
    let well_formed =
        text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    well_formed.then(|| u128::from_str_radix(text, 16).ok())?
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace, self.span, self.flags
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recommendation's own example.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_written_as_it_was_read_and_a_child_is_of_the_same_trace() {
        let context = TraceContext::parse(EXAMPLE).expect("well-formed");
        assert_eq!(context.to_string(), EXAMPLE);
        let child = context.child();
        assert_eq!(child.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(child, context);
        let fresh = TraceContext::start();
        assert_eq!(TraceContext::parse(&fresh.to_string()), Some(fresh));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = EXAMPLE.replace("00-4b", "cc-4b") + "-what-the-future-brings";
        assert_eq!(TraceContext::parse(&later), TraceContext::parse(EXAMPLE));
    }

    #[test]
    fn what_is_not_well_formed_is_ignored() {
        for text in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }
}
