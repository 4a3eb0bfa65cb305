//! Keeps what the writer of the snapshot knows of each server, and decides for how long.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Served;
use super::fetch::FetchError;
use super::memory::RememberedPeer;
use super::shared::SharedApis;
use crate::causes::chain;
use crate::peers::Peer;
use crate::upstream::Upstream;

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    /// Where it answered last, or is asked first.
    pub(super) upstream: Upstream,
    /// Where it may be dialled; read by its poll.
    pub(super) addresses: watch::Sender<Vec<SocketAddr>>,
    pub(super) bell: Arc<Notify>,
    polling: Option<JoinHandle<()>>,
    pub(super) hinted: bool,
    pub(super) incarnation: u64,
    pub(super) knowledge: Knowledge,
    /// What of it counts: what it serves without what may have been deleted since it was heard.
    pub(super) visible: Option<Arc<Served>>,
    /// When it was last said that it cannot be asked, and whether its return was not said since.
    told: Option<Instant>,
    owes_news: bool,
}

/// What is known of a server, and how well.
#[derive(Clone, Debug)]
pub(super) struct Knowledge {
    /// The last set it was known to serve. A server that cannot be asked keeps it for a time: nothing that exists is
    /// forgotten because somebody was slow.
    pub(super) served: Option<Arc<Served>>,
    /// When the question was put that it answered last.
    pub(super) heard: Instant,
    /// Whether it could not be asked since.
    pub(super) is_failing: bool,
    /// Since when it is on nobody's list; `None` while it is on one.
    pub(super) unlisted: Option<Instant>,
}

/// How well a peer is known.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    /// Where it is.
    pub peer: SocketAddr,
    /// When the question was put that it answered last; `None` when nothing is known of it.
    pub heard: Option<Instant>,
    /// Whether it could not be asked since.
    pub is_stale: bool,
}

/// What a list changes about a server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct News {
    /// It may serve something else by now.
    pub(super) is_to_ask: bool,
    /// It may be dialled elsewhere.
    pub(super) is_of_addresses: bool,
    /// The snapshot depends on it.
    pub(super) is_of_snapshot: bool,
}

/// What becomes of what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// All of it stays.
    Stays,
    /// The server is still said to exist, but nobody can say any more what it serves.
    BecomesUnknown,
    /// The server is forgotten.
    IsForgotten,
}

impl Knowledge {
    pub(super) fn new(served: Option<Arc<Served>>, heard: Instant) -> Self {
        Self { served, heard, is_failing: false, unlisted: None }
    }

    /// Decides. API servers leave the list at every restart, and what they serve does not cease to exist by that.
    pub(super) fn fate(&self, now: Instant, stale_after: Duration) -> Fate {
        if self.served.is_none() {
            return if self.unlisted.is_some() { Fate::IsForgotten } else { Fate::Stays };
        }
        let is_silent = self.is_failing && now >= self.heard + stale_after;
        let left = self.unlisted.is_some_and(|since| now >= since + stale_after);
        match (is_silent, self.unlisted) {
            _ if left => Fate::IsForgotten,
            (true, Some(_)) => Fate::IsForgotten,
            (true, None) => Fate::BecomesUnknown,
            (false, _) => Fate::Stays,
        }
    }
}

/// Somebody who comes and goes each second is spoken of once in this time.
const QUIET: Duration = Duration::from_mins(1);

impl Server {
    pub(super) fn new(
        upstream: Upstream,
        addresses: watch::Sender<Vec<SocketAddr>>,
        bell: Arc<Notify>,
        hinted: bool,
        knowledge: Knowledge,
    ) -> Self {
        Self {
            upstream,
            addresses,
            bell,
            polling: None,
            hinted,
            incarnation: 0,
            knowledge,
            visible: None,
            told: None,
            owes_news: false,
        }
    }

    /// Leaves asking it to this task, and no longer to the one before.
    pub(super) fn is_asked_by(&mut self, polling: JoinHandle<()>) {
        if let Some(former) = self.polling.replace(polling) {
            former.abort();
        }
    }

    /// It was asked and answered; whether it serves something else than before.
    pub(super) fn answered(&mut self, found: Arc<Served>, asked: Instant) -> bool {
        let knowledge = &mut self.knowledge;
        let is_new = knowledge.served.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &found));
        (knowledge.served, knowledge.heard, knowledge.is_failing) = (Some(found), asked, false);
        if std::mem::take(&mut self.owes_news) {
            info!(address = %self.upstream.address, "discovery succeeds again");
        }
        is_new
    }

    /// It could not be asked.
    pub(super) fn failed(&mut self, error: &FetchError) {
        let was_failing = std::mem::replace(&mut self.knowledge.is_failing, true);
        if was_failing || self.told.is_some_and(|told| told.elapsed() < QUIET) {
            return;
        }
        self.told = Some(Instant::now());
        self.owes_news = true;
        let has_set = self.knowledge.served.is_some();
        let meanwhile = if has_set { "the last known set stays" } else { "what it serves is not known" };
        warn!(address = %self.upstream.address, error = %chain(error), meanwhile, "discovery failed");
    }

    /// Looks anew at what of it counts. All of the local server's does: it is asked first of all.
    pub(super) fn look(&mut self, is_peer: bool, shared: &SharedApis) {
        self.visible = self.knowledge.served.as_ref().map(|served| {
            if !is_peer {
                return Arc::clone(served);
            }
            match shared.visible(served, self.knowledge.heard) {
                Cow::Borrowed(_) => Arc::clone(served),
                Cow::Owned(rest) => Arc::new(rest),
            }
        });
    }

    /// Whether something of what it serves did not count when that was last looked at.
    pub(super) fn is_partly_hidden(&self) -> bool {
        match (&self.visible, &self.knowledge.served) {
            (Some(visible), Some(served)) => !Arc::ptr_eq(visible, served),
            _ => false,
        }
    }

    /// What outlives the process, after the latest look.
    pub(super) fn to_be_remembered(&self) -> Option<RememberedPeer> {
        let served = self.visible.clone()?;
        let addresses = self.addresses.borrow().clone();
        Some(RememberedPeer { addresses, served, heard: self.knowledge.heard })
    }

    pub(super) fn freshness(&self) -> Freshness {
        let Knowledge { served, heard, is_failing, .. } = &self.knowledge;
        let heard = served.as_ref().map(|_| *heard);
        Freshness { peer: self.upstream.address, heard, is_stale: *is_failing }
    }

    /// Whether it may be dialled at one of these addresses.
    pub(super) fn is_at(&self, addresses: &[SocketAddr]) -> bool {
        self.addresses.borrow().iter().any(|address| addresses.contains(address))
    }

    /// Takes over what a list says.
    pub(super) fn set_listed(&mut self, peer: &Peer) -> News {
        let counted = self.counts();
        let came_back = self.knowledge.unlisted.take().is_some();
        let restarted = self.incarnation != peer.incarnation;
        self.incarnation = peer.incarnation;
        // What answered once was no forgery.
        self.hinted &= peer.hinted;
        let moved = self.addresses.send_if_modified(|addresses| {
            let changed = *addresses != peer.addresses;
            addresses.clone_from(&peer.addresses);
            changed
        });
        News {
            is_to_ask: came_back || restarted,
            is_of_addresses: moved,
            is_of_snapshot: came_back || counted != self.counts(),
        }
    }

    /// Whether it ever said what it serves, as far as that is still believed.
    pub(super) fn is_known(&self) -> bool {
        self.knowledge.served.is_some()
    }

    /// Whether it counts: a server that only a Lease speaks of does once it has answered.
    pub(super) fn counts(&self) -> bool {
        !self.hinted || self.is_known()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(polling) = &self.polling {
            polling.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE_AFTER: Duration = Duration::from_mins(10);

    #[test]
    fn what_is_known_of_a_server_stays_until_it_was_silent_for_too_long() {
        let now = Instant::now() + Duration::from_hours(1);
        let minutes = |ago| now.checked_sub(Duration::from_mins(ago)).expect("an hour can be gone back");
        let served = Some(Arc::new(Served::default()));
        // Heard and left the list this many minutes ago.
        for (heard, is_failing, unlisted, expected) in [
            (0, false, None, Fate::Stays),
            (9, true, None, Fate::Stays),
            (10, true, None, Fate::BecomesUnknown),
            (59, false, None, Fate::Stays),
            (0, false, Some(9), Fate::Stays),
            (0, false, Some(10), Fate::IsForgotten),
            (9, true, Some(9), Fate::Stays),
            (10, true, Some(9), Fate::IsForgotten),
        ] {
            let knowledge = Knowledge {
                served: served.clone(),
                heard: minutes(heard),
                is_failing,
                unlisted: unlisted.map(minutes),
            };
            assert_eq!(knowledge.fate(now, STALE_AFTER), expected, "{knowledge:?}");
        }
    }

    #[test]
    fn a_server_that_never_answered_stays_as_long_as_it_is_listed() {
        let mut knowledge = Knowledge::new(None, Instant::now());
        knowledge.is_failing = true;
        let later = Instant::now() + Duration::from_hours(24);
        assert_eq!(knowledge.fate(later, STALE_AFTER), Fate::Stays);
        knowledge.unlisted = Some(later);
        assert_eq!(knowledge.fate(later, STALE_AFTER), Fate::IsForgotten);
    }
}
