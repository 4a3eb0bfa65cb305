//! Lets only whole events of a watch stream through, and remembers the last one.

use std::ops::Range;

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
        let searched = self.partial.len();
        self.partial.extend_from_slice(&data);
        let Some(last) = self.take_stock(searched) else {
            self.torn = self.partial.len() > EVENT_LIMIT;
            return if self.torn { self.rest() } else { Bytes::new() };
        };
        let whole = self.partial.split_to(last.end).freeze();
        // Copies: parts of the buffer would hold on to all of it for as long as the watch is idle.
        self.partial = BytesMut::from(&self.partial[..]);
        self.last = Some(Bytes::copy_from_slice(&whole[last]));
        whole
    }

    /// Looks at the events that are whole by now; where the last of them lies.
    fn take_stock(&mut self, mut searched: usize) -> Option<Range<usize>> {
        let mut last = None;
        let mut whole = 0;
        while let Some(length) = self.encoding.first_event(&self.partial[whole..], searched) {
            self.ordered |= self.encoding.is_bookmark(&self.partial[whole..whole + length]);
            last = Some(whole..whole + length);
            whole += length;
            searched = 0;
        }
        last
    }

    /// Whether everything that was passed on so far were whole events, and nothing waits for its end.
    pub(super) fn is_between_events(&self) -> bool {
        self.partial.is_empty() && !self.torn
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
