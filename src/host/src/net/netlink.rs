//! Requests to the kernel over netlink (RFC 3549), and its answers.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART,
    NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer,
    NetlinkHeader,
};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use super::attributes::{Attributes, Body};

/// Time the kernel gets to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often a list is asked for at most that changes while the kernel writes it.
const LIST_ATTEMPTS: usize = 5;

/// Messages and their attributes begin at multiples of this.
const ALIGNMENT: usize = 4;

const HEADER: usize = 16;

/// Explanation of an error for people (`NLMSGERR_ATTR_MSG`).
const EXPLANATION: u16 = 1;

/// Why the kernel did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{}", explanation.clone().unwrap_or_else(|| error.to_string()))]
pub(super) struct NetlinkError {
    error: io::Error,
    /// In the kernel's words.
    pub(super) explanation: Option<String>,
}

impl NetlinkError {
    /// The error number, if it is an error that has one.
    pub(super) fn errno(&self) -> Option<i32> {
        self.error.raw_os_error()
    }

    fn malformed() -> Self {
        io::Error::new(io::ErrorKind::InvalidData, "malformed answer of the kernel").into()
    }
}

impl From<io::Error> for NetlinkError {
    fn from(error: io::Error) -> Self {
        Self {
            error,
            explanation: None,
        }
    }
}

/// One message to the kernel.
#[derive(Debug)]
pub(super) struct Request {
    kind: u16,
    flags: u16,
    body: Body,
}

impl Request {
    /// A message of that kind, with flags beyond those that follow from how it is sent.
    pub(super) fn new(kind: u16, flags: u16, body: Body) -> Self {
        Self { kind, flags, body }
    }

    fn write_to(&self, buffer: &mut Vec<u8>, flags: u16, sequence: u32) -> io::Result<()> {
        let length = HEADER + self.body.bytes().len();
        let mut header = NetlinkHeader::default();
        header.length = u32::try_from(length).map_err(io::Error::other)?;
        header.message_type = self.kind;
        header.flags = NLM_F_REQUEST | self.flags | flags;
        header.sequence_number = sequence;
        let begin = buffer.len();
        buffer.resize(begin + HEADER, 0);
        header.emit(&mut buffer[begin..]);
        buffer.extend_from_slice(self.body.bytes());
        buffer.resize(buffer.len().next_multiple_of(ALIGNMENT), 0);
        Ok(())
    }
}

/// A message of the kernel.
struct Answer<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Answer<'_> {
    /// What an acknowledgement, an error or the end of a list says.
    fn outcome(&self) -> Result<(), NetlinkError> {
        let code = self
            .body
            .first_chunk()
            .ok_or_else(NetlinkError::malformed)?;
        let code = i32::from_ne_bytes(*code);
        if code == 0 {
            return Ok(());
        }
        // After the header of the request, which comes back without its body.
        let attributes = self.body.get(size_of::<i32>() + HEADER..);
        let attributes = attributes.filter(|_| self.flags & NLM_F_ACK_TLVS != 0);
        Err(NetlinkError {
            error: io::Error::from_raw_os_error(code.saturating_abs()),
            explanation: attributes
                .and_then(|attributes| Attributes::new(attributes).text(EXPLANATION)),
        })
    }
}

/// The messages in what was received at once.
fn answers(mut received: &[u8]) -> impl Iterator<Item = Result<Answer<'_>, NetlinkError>> {
    std::iter::from_fn(move || {
        if received.is_empty() {
            return None;
        }
        let Ok(message) = NetlinkBuffer::new_checked(received) else {
            received = &[];
            return Some(Err(NetlinkError::malformed()));
        };
        let answer = Answer {
            kind: message.message_type(),
            flags: message.flags(),
            sequence: message.sequence_number(),
            body: message.payload(),
        };
        let length = (HEADER + answer.body.len()).next_multiple_of(ALIGNMENT);
        received = received.get(length..).unwrap_or_default();
        Some(Ok(answer))
    })
}

/// A connection to one part of the kernel.
pub(super) struct Netlink {
    socket: TokioSocket,
    sequence: u32,
}

impl Netlink {
    /// Connects to that part (`NETLINK_…`) in the network namespace of the calling thread.
    pub(super) fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let mut socket = TokioSocket::new(protocol)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_ref().set_ext_ack(true)?;
        socket.socket_ref().set_cap_ack(true)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Has the kernel send what it announces to that group.
    pub(super) fn join(&self, group: u32) -> Result<(), NetlinkError> {
        Ok(self.socket.socket_ref().add_membership(group)?)
    }

    /// Waits for what the kernel announces, which is thrown away.
    pub(super) async fn announced(&self) -> Result<(), NetlinkError> {
        self.socket.recv_from_full().await?;
        Ok(())
    }

    /// Has something changed.
    pub(super) async fn change(&mut self, request: &Request) -> Result<(), NetlinkError> {
        let first = self.send(request, NLM_F_ACK).await?;
        self.acknowledgements(first, 1).await
    }

    /// Reads one thing.
    pub(super) async fn get(&mut self, request: &Request) -> Result<Vec<u8>, NetlinkError> {
        let first = self.send(request, 0).await?;
        loop {
            let received = self.receive().await?;
            for answer in answers(&received) {
                let answer = answer?;
                match answer.kind {
                    _ if answer.sequence != first => {}
                    NLMSG_NOOP => {}
                    NLMSG_ERROR => answer.outcome()?,
                    _ => return Ok(answer.body.to_vec()),
                }
            }
        }
    }

    /// Reads all things of a kind.
    pub(super) async fn list(&mut self, request: &Request) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let (mut things, mut consistent) = self.list_once(request).await?;
        for _ in 1..LIST_ATTEMPTS {
            if consistent {
                break;
            }
            (things, consistent) = self.list_once(request).await?;
        }
        // One that always changes is taken as it is: each change is announced, and has it read again.
        Ok(things)
    }

    /// Reads all things of a kind, and whether there was no change meanwhile.
    async fn list_once(&mut self, request: &Request) -> Result<(Vec<Vec<u8>>, bool), NetlinkError> {
        let first = self.send(request, NLM_F_DUMP).await?;
        let (mut things, mut consistent, mut ended) = (Vec::new(), true, false);
        while !ended {
            let received = self.receive().await?;
            for answer in answers(&received) {
                let answer = answer?;
                if answer.sequence != first {
                    continue;
                }
                consistent &= answer.flags & NLM_F_DUMP_INTR == 0;
                match answer.kind {
                    NLMSG_NOOP => {}
                    NLMSG_OVERRUN => return Err(NetlinkError::malformed()),
                    NLMSG_DONE | NLMSG_ERROR => {
                        answer.outcome()?;
                        ended = true;
                    }
                    _ => {
                        ended = answer.flags & NLM_F_MULTIPART == 0;
                        things.push(answer.body.to_vec());
                    }
                }
            }
        }
        Ok((things, consistent))
    }

    /// Has several things changed, all or none, between the messages that begin and end such a batch.
    pub(super) async fn batch(
        &mut self,
        begin: Request,
        changes: Vec<Request>,
        end: Request,
    ) -> Result<(), NetlinkError> {
        let mut bytes = Vec::new();
        // Only changes are acknowledged; of the beginning one hears if it fails.
        let first = self.write(&begin, 0, &mut bytes)?;
        for change in &changes {
            self.write(change, NLM_F_ACK, &mut bytes)?;
        }
        self.write(&end, 0, &mut bytes)?;
        self.transmit(&bytes).await?;
        self.acknowledgements(first, changes.len()).await
    }

    /// Waits until so many requests have succeeded, or one of them has failed. `first` is the number of the first.
    async fn acknowledgements(&mut self, first: u32, count: usize) -> Result<(), NetlinkError> {
        let last = self.sequence;
        let ours = |sequence: u32| sequence.wrapping_sub(first) <= last.wrapping_sub(first);
        let mut succeeded = 0;
        while succeeded < count {
            let received = self.receive().await?;
            for answer in answers(&received) {
                let answer = answer?;
                if answer.kind == NLMSG_ERROR && ours(answer.sequence) {
                    answer.outcome()?;
                    succeeded += 1;
                }
            }
        }
        Ok(())
    }

    /// Sends a request, and returns its number.
    async fn send(&mut self, request: &Request, flags: u16) -> Result<u32, NetlinkError> {
        let mut bytes = Vec::new();
        let sequence = self.write(request, flags, &mut bytes)?;
        self.transmit(&bytes).await?;
        Ok(sequence)
    }

    /// Gives a request the next number, and writes it behind what is there.
    fn write(&mut self, request: &Request, flags: u16, bytes: &mut Vec<u8>) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        request.write_to(bytes, flags, self.sequence)?;
        Ok(self.sequence)
    }

    async fn transmit(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        let sent = self.socket.send_to(bytes, &SocketAddr::new(0, 0)).await?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::WriteZero).into())
        }
    }

    async fn receive(&self) -> Result<Vec<u8>, NetlinkError> {
        // What a request that was given up is answered later has another number.
        let received = tokio::time::timeout(TIMEOUT, self.socket.recv_from_full()).await;
        let (bytes, _) = received.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(bytes)
    }
}
