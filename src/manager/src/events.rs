//! Events: one ordered stream, of which the last few thousand can be replayed.
//!
//! The stream outlives the manager, though not the host: it is kept in a file of the run
//! directory, which is in memory. Its epoch is the kernel's boot id.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use lodge_api::event::{Change, Event, EventBody, EventParams};
use lodge_api::{Name, Problem};
use tokio::sync::broadcast;

use crate::Manager;

/// Events kept for replay.
const KEEP: usize = 4096;

/// Events a listener may lag behind before it gets a gap.
const LAG: usize = 1024;

/// Longest line read back from the file, in bytes.
const MAX_LINE: u64 = 256 << 10;

/// The stream.
#[derive(Debug)]
pub(crate) struct EventStream {
    epoch: String,
    ring: Mutex<Ring>,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    last: u64,
    /// `None` once the manager has ended.
    listeners: Option<broadcast::Sender<Arc<Event>>>,
    file: RingFile,
}

impl EventStream {
    /// Goes on with the stream kept at `path` if it is of this boot, else starts one.
    pub(crate) fn open(path: PathBuf, epoch: String) -> Self {
        let events = read_back(&path, &epoch).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, "earlier events cannot be read");
            }
            VecDeque::new()
        });
        let mut file = RingFile {
            path,
            file: None,
            lines: 0,
        };
        file.rewrite(&events);
        let ring = Ring {
            last: events.back().map_or(0, |event| event.sequence),
            events,
            listeners: Some(broadcast::channel(LAG).0),
            file,
        };
        Self {
            epoch,
            ring: Mutex::new(ring),
        }
    }

    /// Adds an event and tells the listeners.
    pub(crate) fn publish(&self, user: Option<&Name>, body: EventBody) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.last += 1;
        let event = Arc::new(Event {
            sequence: ring.last,
            epoch: self.epoch.clone(),
            time: Timestamp::now(),
            user: user.cloned(),
            body,
        });
        if ring.events.len() == KEEP {
            ring.events.pop_front();
        }
        ring.events.push_back(event.clone());
        let Ring { file, events, .. } = &mut *ring;
        file.append(&event, events);
        if let Some(listeners) = &ring.listeners {
            // Nobody listening is no error.
            let _ = listeners.send(event);
        }
    }

    /// An object was created, changed or deleted.
    pub(crate) fn object(&self, user: &Name, target: String, change: Change) {
        self.publish(Some(user), EventBody::Object { target, change });
    }

    /// Sequence number of the last event.
    pub(crate) fn last(&self) -> u64 {
        self.ring
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last
    }

    /// Ends all subscriptions.
    pub(crate) fn close(&self) {
        self.ring
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .listeners = None;
    }

    fn since(&self, params: &EventParams) -> Result<(Vec<Event>, Subscription), Problem> {
        let types = Types::parse(params.types.as_deref())?;
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = ring.listeners.as_ref().map(broadcast::Sender::subscribe);
        let replayed = match params.since {
            None => Vec::new(),
            Some(since) => self.replay(&ring, since, params.epoch.as_deref()),
        };
        let last = ring.last;
        drop(ring);
        let replayed = replayed
            .into_iter()
            .filter(|event| types.wants(&event.body))
            .collect();
        let subscription = Subscription {
            receiver,
            types,
            last,
            epoch: self.epoch.clone(),
        };
        Ok((replayed, subscription))
    }

    fn replay(&self, ring: &Ring, since: u64, epoch: Option<&str>) -> Vec<Event> {
        let other = epoch.is_some_and(|epoch| epoch != self.epoch) || since > ring.last;
        let since = if other { 0 } else { since };
        let first = ring
            .events
            .front()
            .map_or(ring.last + 1, |event| event.sequence);
        let mut replayed = Vec::new();
        if other || first > since + 1 {
            let to = first.saturating_sub(1);
            replayed.push(gap(&self.epoch, (since + 1).min(to), to));
        }
        let kept = ring.events.iter().filter(|event| event.sequence > since);
        replayed.extend(kept.map(|event| (**event).clone()));
        replayed
    }
}

fn gap(epoch: &str, from: u64, to: u64) -> Event {
    Event {
        sequence: to,
        epoch: epoch.to_owned(),
        time: Timestamp::now(),
        user: None,
        body: EventBody::Gap { from, to },
    }
}

/// The file behind the ring. Losing it loses replay after a restart, nothing else.
#[derive(Debug)]
struct RingFile {
    path: PathBuf,
    file: Option<File>,
    lines: usize,
}

impl RingFile {
    fn append(&mut self, event: &Event, all: &VecDeque<Arc<Event>>) {
        if self.lines >= 2 * KEEP || self.file.is_none() {
            self.rewrite(all);
            return;
        }
        let written = line(event).and_then(|line| match &mut self.file {
            Some(file) => file.write_all(&line),
            None => Ok(()),
        });
        match written {
            Ok(()) => self.lines += 1,
            Err(error) => {
                tracing::warn!(%error, "an event cannot be kept for replay after a restart");
                self.file = None;
            }
        }
    }

    fn rewrite(&mut self, all: &VecDeque<Arc<Event>>) {
        let write = || -> io::Result<File> {
            let part = self.path.with_extension("part");
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&part)?;
            let mut text = Vec::new();
            for event in all {
                text.extend(line(event)?);
            }
            file.write_all(&text)?;
            fs::rename(&part, &self.path)?;
            Ok(file)
        };
        self.lines = all.len();
        self.file = write()
            .inspect_err(|error| tracing::warn!(%error, "events cannot be kept for a restart"))
            .ok();
    }
}

fn line(event: &Event) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    Ok(line)
}

fn read_back(path: &Path, epoch: &str) -> io::Result<VecDeque<Arc<Event>>> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut events: VecDeque<Arc<Event>> = VecDeque::new();
    loop {
        let mut text = Vec::new();
        io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut text)?;
        // The last line may be half written: the manager was killed.
        let Ok(event) = serde_json::from_slice::<Event>(&text) else {
            return Ok(events);
        };
        let follows = events
            .back()
            .is_none_or(|last| last.sequence + 1 == event.sequence);
        if event.epoch != epoch || !follows {
            return Ok(events);
        }
        if events.len() == KEEP {
            events.pop_front();
        }
        events.push_back(Arc::new(event));
    }
}

/// Which types of events a listener wants.
#[derive(Debug, Clone, Default)]
struct Types(Option<Vec<String>>);

impl Types {
    const KNOWN: [&'static str; 9] = [
        "object",
        "vm_state",
        "vm_reset",
        "vm_panicked",
        "vm_jail_violation",
        "vm_watchdog",
        "vm_disk_error",
        "operation",
        "system",
    ];

    fn parse(text: Option<&str>) -> Result<Self, Problem> {
        let Some(text) = text else {
            return Ok(Self(None));
        };
        let mut types = Vec::new();
        for name in text.split(',').map(str::trim) {
            if !Self::KNOWN.contains(&name) {
                let shown = crate::catalogue::shown(name);
                return Err(Problem::invalid(
                    "?types",
                    format!("there is no event type \"{shown}\""),
                )
                .with_hint(format!("types: {}", Self::KNOWN.join(", "))));
            }
            types.push(name.to_owned());
        }
        Ok(Self(Some(types)))
    }

    fn wants(&self, body: &EventBody) -> bool {
        let name = match body {
            EventBody::Object { .. } => "object",
            EventBody::VmState { .. } => "vm_state",
            EventBody::VmReset { .. } => "vm_reset",
            EventBody::VmPanicked { .. } => "vm_panicked",
            EventBody::VmJailViolation { .. } => "vm_jail_violation",
            EventBody::VmWatchdog { .. } => "vm_watchdog",
            EventBody::VmDiskError { .. } => "vm_disk_error",
            EventBody::Operation { .. } => "operation",
            EventBody::System { .. } => "system",
            // Everybody must know that something is missing.
            EventBody::Gap { .. } => return true,
        };
        self.0
            .as_ref()
            .is_none_or(|types| types.iter().any(|wanted| wanted == name))
    }
}

/// Events as they happen, after those replayed. Ends when the manager does.
#[derive(Debug)]
pub struct Subscription {
    receiver: Option<broadcast::Receiver<Arc<Event>>>,
    types: Types,
    /// Sequence number of the last event seen, wanted or not.
    last: u64,
    epoch: String,
}

impl Subscription {
    /// The next event, a [`Gap`](EventBody::Gap) where this listener was too
    /// slow. `None` at the end. Safe to cancel.
    pub async fn next(&mut self) -> Option<Event> {
        let receiver = self.receiver.as_mut()?;
        loop {
            match receiver.recv().await {
                Ok(event) => {
                    self.last = event.sequence;
                    if self.types.wants(&event.body) {
                        return Some((*event).clone());
                    }
                }
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    let from = self.last + 1;
                    self.last += count;
                    return Some(gap(&self.epoch, from, self.last));
                }
                Err(broadcast::error::RecvError::Closed) => {
                    self.receiver = None;
                    return None;
                }
            }
        }
    }
}

impl Manager {
    /// Events kept since `params.since` (none when absent), and a subscription that goes on
    /// exactly where they end.
    ///
    /// # Errors
    /// `InvalidRequest` at `?types` for an unknown type.
    pub fn events_since(
        &self,
        params: &EventParams,
    ) -> Result<(Vec<Event>, Subscription), Problem> {
        self.core.events.since(params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(number: usize) -> EventBody {
        EventBody::System {
            message: number.to_string(),
        }
    }

    fn stream(directory: &tempfile::TempDir, epoch: &str) -> EventStream {
        EventStream::open(directory.path().join("events"), epoch.to_owned())
    }

    fn since(since: u64) -> EventParams {
        EventParams {
            since: Some(since),
            ..EventParams::default()
        }
    }

    fn sequences(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.sequence).collect()
    }

    #[tokio::test]
    async fn replay_and_subscription_join_without_a_seam() {
        let directory = tempfile::tempdir().unwrap();
        let stream = stream(&directory, "one");
        (1..=5).for_each(|number| stream.publish(None, message(number)));
        let (replayed, mut subscription) = stream.since(&since(2)).unwrap();
        assert_eq!(sequences(&replayed), [3, 4, 5]);
        stream.publish(None, message(6));
        assert_eq!(subscription.next().await.unwrap().sequence, 6);
        stream.close();
        assert_eq!(subscription.next().await, None);
        assert_eq!(subscription.next().await, None);
    }

    #[tokio::test]
    async fn a_slow_listener_gets_a_gap_and_then_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let stream = stream(&directory, "one");
        let (_, mut subscription) = stream.since(&EventParams::default()).unwrap();
        (1..=LAG + 10).for_each(|number| stream.publish(None, message(number)));
        let gap = subscription.next().await.unwrap();
        assert_eq!(gap.body, EventBody::Gap { from: 1, to: 10 });
        assert_eq!(subscription.next().await.unwrap().sequence, 11);
    }

    #[test]
    fn the_stream_survives_a_restart_but_not_a_reboot() {
        let directory = tempfile::tempdir().unwrap();
        let first = stream(&directory, "one");
        (1..=3).for_each(|number| first.publish(None, message(number)));
        drop(first);
        let mut file = File::options()
            .append(true)
            .open(directory.path().join("events"))
            .unwrap();
        file.write_all(b"{\"sequence\": 4, \"epo").unwrap();
        let second = stream(&directory, "one");
        second.publish(None, message(4));
        let (replayed, _) = second.since(&since(0)).unwrap();
        assert_eq!(sequences(&replayed), [1, 2, 3, 4]);
        let third = stream(&directory, "two");
        let params = EventParams {
            epoch: Some("one".to_owned()),
            ..since(4)
        };
        third.publish(None, message(1));
        let (replayed, _) = third.since(&params).unwrap();
        assert!(matches!(replayed[0].body, EventBody::Gap { .. }));
        assert_eq!(replayed[1].epoch, "two");
    }

    #[test]
    fn only_wanted_types_and_gaps_are_sent() {
        let directory = tempfile::tempdir().unwrap();
        let stream = stream(&directory, "one");
        stream.publish(None, message(1));
        stream.object(
            &"ann".parse().unwrap(),
            "/v1/vms/a".to_owned(),
            Change::Created,
        );
        let params = EventParams {
            types: Some("object, vm_state".to_owned()),
            ..since(0)
        };
        assert_eq!(sequences(&stream.since(&params).unwrap().0), [2]);
        let params = EventParams {
            types: Some("object,colour".to_owned()),
            ..since(0)
        };
        assert_eq!(
            stream.since(&params).unwrap_err().pointer.unwrap(),
            "?types"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

        #[test]
        fn what_is_replayed_is_whole_or_says_what_is_missing(count in 0..3 * KEEP, asked in 0..3 * KEEP as u64, restart: bool) {
            let directory = tempfile::tempdir().unwrap();
            let mut events = stream(&directory, "one");
            (1..=count).for_each(|number| events.publish(None, message(number)));
            if restart {
                drop(events);
                events = stream(&directory, "one");
            }
            let (replayed, _) = events.since(&since(asked)).unwrap();
            let mut expected = if asked > count as u64 { 1 } else { asked + 1 };
            for event in replayed {
                if let EventBody::Gap { from, to } = event.body {
                    prop_assert!(from <= expected);
                    expected = to + 1;
                } else {
                    prop_assert_eq!(event.sequence, expected);
                    expected += 1;
                }
            }
            prop_assert_eq!(expected, count as u64 + 1);
        }
    }
}
