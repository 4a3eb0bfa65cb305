//! Lets only whole events of a watch stream through, and remembers the last one.

use bytes::{Bytes, BytesMut};

use super::event::Encoding;

/// An event larger than this is passed on in pieces, and the stream can then not be continued. etcd allows 1.5 MiB.
const EVENT_LIMIT: usize = 8 * 1024 * 1024;

/// Cuts a stream at the ends of its events.
#[derive(Debug)]
pub(super) struct Splitter {
    encoding: Encoding,
    partial: BytesMut,
    /// The last whole event that carries a resourceVersion to go on from; not read before it is needed.
    last: Option<Bytes>,
    /// Whether events seen so far are ordered by resourceVersion: true from the start when the client named one, else
    /// from the first bookmark on, before which a server sends what exists in any order.
    ordered: bool,
    torn: bool,
}

impl Splitter {
    pub(super) fn new(encoding: Encoding, ordered: bool) -> Self {
        Self { encoding, partial: BytesMut::new(), last: None, ordered, torn: false }
    }

    /// Takes bytes in and gives out the whole events they complete.
    pub(super) fn push(&mut self, data: Bytes) -> Bytes {
        if self.torn {
            return data;
        }
        let mut searched = self.partial.len();
        let buffer = if self.partial.is_empty() {
            data
        } else {
            self.partial.extend_from_slice(&data);
            self.partial.split().freeze()
        };
        let mut whole = 0;
        let mut last = 0..0;
        while let Some(length) = self.encoding.first_event(&buffer[whole..], searched) {
            last = whole..whole + length;
            self.ordered |= self.encoding.is_bookmark(&buffer[last.clone()]);
            whole += length;
            searched = 0;
        }
        if !last.is_empty() {
            // A copy: a slice would hold on to the whole buffer for as long as the watch is idle.
            self.last = Some(Bytes::copy_from_slice(&buffer[last]));
        }
        if buffer.len() - whole > EVENT_LIMIT {
            self.torn = true;
            return buffer;
        }
        self.partial.extend_from_slice(&buffer[whole..]);
        buffer.slice(..whole)
    }

    /// Bytes of an event that never became whole.
    pub(super) fn rest(&mut self) -> Bytes {
        self.partial.split().freeze()
    }

    /// The resourceVersion after which a new stream continues this one; `from` is where this one began.
    pub(super) fn resume_after(&self, from: Option<&str>) -> Option<String> {
        if self.torn || !self.ordered {
            return None;
        }
        match &self.last {
            Some(event) => self.encoding.resource_version(event),
            None => from.map(str::to_owned),
        }
    }
}
