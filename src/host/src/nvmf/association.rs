//! A connection to a target's admin queue, by this program itself: to hear whether and why not a subsystem can be used, and what there is.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::pdu::{self, Completion, HEADER, Header};
use super::{HostIdentity, Nqn};

/// How long the network has to reach the target.
const REACH: Duration = Duration::from_secs(5);

/// How long all that is asked may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Units of data that may come before a command's end.
const MOST_UNITS: usize = 64;

/// Opcode of commands of fabrics, and two of their kinds (NVMe-oF 1.1a, section 3).
const FABRICS: u8 = 0x7f;
const PROPERTY_SET: u8 = 0;
const CONNECT: u8 = 1;
const PROPERTY_GET: u8 = 4;

/// That an entry has a description of its data, as all over fabrics do.
const WITH_DESCRIPTION: u8 = 1 << 6;

/// What describes data within the command, and data that the transport brings.
const IN_COMMAND: u8 = 0x01;
const BY_TRANSPORT: u8 = 0x5a;

/// Status of a connect command (section 3.3).
const INVALID_PARAMETERS: u16 = 0x182;
const INVALID_HOST: u16 = 0x184;
const AUTHENTICATION: u16 = 0x191;

/// Bits of its result: the host is to prove who it is.
const MUST_AUTHENTICATE: u64 = 0b110 << 16;

/// Where its data have the names.
const CONNECT_DATA: usize = 1024;
const SUBSYSTEM_AT: usize = 256;
const HOST_AT: usize = 512;

/// Registers, and what is written to and read from them (NVM Express 1.4, section 3.1).
const CONTROLLER_CONFIGURATION: u32 = 0x14;
const CONTROLLER_STATUS: u32 = 0x1c;
const ENABLE: u64 = 0x0046_0001;
const READY: u64 = 1;

/// Between two looks at a register.
const PAUSE: Duration = Duration::from_millis(50);

/// Why a subsystem cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there, or nothing comes back.
    #[error("{0} cannot be reached: {1}")]
    Unreachable(SocketAddr, io::Error),
    /// Whoever listens there does not answer, or hangs up.
    #[error("{0} does not answer as a target does: {1}")]
    Silent(SocketAddr, io::Error),
    /// It is something else.
    #[error("{0} is no NVMe/TCP target: it sends {1}")]
    NotNvme(SocketAddr, &'static str),
    /// It has none of that name.
    #[error("the target {0} has no subsystem of that name")]
    NoSuchSubsystem(SocketAddr),
    /// The name of this host is not on its list.
    #[error("the target {0} does not allow this host to use the subsystem")]
    NotAllowed(SocketAddr),
    /// It wants a proof.
    #[error("the target {0} wants authentication, which Lodge does not do")]
    WantsAuthentication(SocketAddr),
    /// Something else, with its status.
    #[error("the target {0} refuses, with the NVMe status {1:#x}")]
    Refused(SocketAddr, u16),
}

/// A connection to the admin queue of a subsystem. It ends when it is dropped.
#[derive(Debug)]
pub struct Association {
    stream: TcpStream,
    target: SocketAddr,
    deadline: Instant,
    /// What the target wants data in commands aligned to.
    alignment: usize,
    next: u16,
}

impl Association {
    /// Connects as that host. All that is asked has to be answered within 15 s from now.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn open(
        target: SocketAddr,
        subsystem: &Nqn,
        host: HostIdentity,
    ) -> Result<Self, ConnectError> {
        let stream = TcpStream::connect_timeout(&target, REACH)
            .map_err(|error| ConnectError::Unreachable(target, error))?;
        // What does not work only makes it slower.
        let _ = stream.set_nodelay(true);
        let mut association = Self {
            stream,
            target,
            deadline: Instant::now() + PATIENCE,
            alignment: 4,
            next: 0,
        };
        association.send(&pdu::ic_request())?;
        let (header, body) = association.receive()?;
        association.alignment =
            pdu::ic_response(header, &body).map_err(|what| association.not_nvme(what))?;
        association.connect(subsystem, host)?;
        Ok(association)
    }

    fn connect(&mut self, subsystem: &Nqn, host: HostIdentity) -> Result<(), ConnectError> {
        let mut data = vec![0; CONNECT_DATA];
        data[..16].copy_from_slice(host.0.as_bytes());
        // Any controller.
        data[16..18].copy_from_slice(&[0xff, 0xff]);
        let host = host.nqn();
        for (at, name) in [(SUBSYSTEM_AT, subsystem), (HOST_AT, &host)] {
            let name = name.as_str().as_bytes();
            data[at..at + name.len()].copy_from_slice(name);
        }
        let mut entry = fabrics(CONNECT);
        describe(&mut entry, IN_COMMAND, CONNECT_DATA);
        // Entries of the queue, less one; of the admin queue at least 32.
        entry[44] = 31;
        let completion = self.carry_out(entry, &data, &mut [])?;
        let target = self.target;
        match completion.status {
            0 if completion.result & MUST_AUTHENTICATE == 0 => Ok(()),
            0 | AUTHENTICATION => Err(ConnectError::WantsAuthentication(target)),
            // The result says where the mistake is: in the data, at the name of the subsystem.
            INVALID_PARAMETERS if completion.result & 0xff_ffff == 0x1_0100 => {
                Err(ConnectError::NoSuchSubsystem(target))
            }
            INVALID_HOST => Err(ConnectError::NotAllowed(target)),
            status => Err(ConnectError::Refused(target, status)),
        }
    }

    /// Switches the controller on: before that it does nothing.
    pub(super) fn enable(&mut self) -> Result<(), ConnectError> {
        let mut set = fabrics(PROPERTY_SET);
        set[44..48].copy_from_slice(&CONTROLLER_CONFIGURATION.to_le_bytes());
        set[48..56].copy_from_slice(&ENABLE.to_le_bytes());
        let completion = self.carry_out(set, &[], &mut [])?;
        self.require(completion)?;
        loop {
            let mut get = fabrics(PROPERTY_GET);
            get[44..48].copy_from_slice(&CONTROLLER_STATUS.to_le_bytes());
            let completion = self.carry_out(get, &[], &mut [])?;
            self.require(completion)?;
            if completion.result & READY != 0 {
                return Ok(());
            }
            self.time_left()?;
            std::thread::sleep(PAUSE);
        }
    }

    /// Reads a part of a log page (NVM Express 1.4, section 5.14) into `page`, whose length is a multiple of 4.
    pub(super) fn log_page(
        &mut self,
        log: u8,
        offset: u64,
        page: &mut [u8],
    ) -> Result<(), ConnectError> {
        let mut entry = [0; 64];
        (entry[0], entry[1]) = (0x02, WITH_DESCRIPTION);
        describe(&mut entry, BY_TRANSPORT, page.len());
        entry[40] = log;
        let words = (page.len() / 4).saturating_sub(1) as u32;
        entry[42..46].copy_from_slice(&words.to_le_bytes());
        entry[48..56].copy_from_slice(&offset.to_le_bytes());
        let completion = self.carry_out(entry, &[], page)?;
        self.require(completion)
    }

    fn require(&self, completion: Completion) -> Result<(), ConnectError> {
        match completion.status {
            0 => Ok(()),
            status => Err(ConnectError::Refused(self.target, status)),
        }
    }

    /// Sends a command, puts what it brings into `into`, and waits for its end.
    fn carry_out(
        &mut self,
        mut entry: [u8; 64],
        data: &[u8],
        into: &mut [u8],
    ) -> Result<Completion, ConnectError> {
        self.next = self.next.wrapping_add(1);
        let number = self.next;
        entry[2..4].copy_from_slice(&number.to_le_bytes());
        self.send(&pdu::command(&entry, data, self.alignment))?;
        for _ in 0..MOST_UNITS {
            let (header, body) = self.receive()?;
            match header.kind {
                pdu::RESPONSE => {
                    let completion =
                        pdu::response(header, &body).map_err(|what| self.not_nvme(what))?;
                    if completion.command != number {
                        return Err(self.not_nvme("the end of another command"));
                    }
                    return Ok(completion);
                }
                pdu::DATA_TO_HOST => {
                    let part = pdu::data(header, &body).map_err(|what| self.not_nvme(what))?;
                    let end = part.offset.saturating_add(part.bytes.len());
                    let room = into.get_mut(part.offset..end);
                    let room = room.filter(|_| part.command == number);
                    room.ok_or_else(|| self.not_nvme("data that it was not asked for"))?
                        .copy_from_slice(part.bytes);
                    if part.ends {
                        return Ok(Completion {
                            command: number,
                            result: 0,
                            status: 0,
                        });
                    }
                }
                pdu::TARGET_TERMINATES => {
                    return Err(self.not_nvme("a refusal of what it was sent"));
                }
                _ => return Err(self.not_nvme("a unit that has no place here")),
            }
        }
        Err(self.not_nvme("no end of data"))
    }

    fn send(&mut self, unit: &[u8]) -> Result<(), ConnectError> {
        let left = self.time_left()?;
        let sent = self
            .stream
            .set_write_timeout(Some(left))
            .and_then(|()| self.stream.write_all(unit));
        sent.map_err(|error| ConnectError::Silent(self.target, error))
    }

    fn receive(&mut self) -> Result<(Header, Vec<u8>), ConnectError> {
        let mut head = [0; HEADER];
        self.fill(&mut head)?;
        let header = Header::parse(head).map_err(|what| self.not_nvme(what))?;
        let mut body = vec![0; header.length - HEADER];
        self.fill(&mut body)?;
        Ok((header, body))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ConnectError> {
        let mut rest = buffer;
        while !rest.is_empty() {
            // Of each read anew: a target that sends a byte at a time does not get more.
            let left = self.time_left()?;
            let read = self
                .stream
                .set_read_timeout(Some(left))
                .and_then(|()| self.stream.read(rest));
            match read {
                Ok(0) => {
                    let error = io::Error::new(io::ErrorKind::UnexpectedEof, "it hangs up");
                    return Err(ConnectError::Silent(self.target, error));
                }
                Ok(count) => rest = &mut rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(self.timed_out());
                }
                Err(error) => return Err(ConnectError::Silent(self.target, error)),
            }
        }
        Ok(())
    }

    fn time_left(&self) -> Result<Duration, ConnectError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        (!left.is_zero())
            .then_some(left)
            .ok_or_else(|| self.timed_out())
    }

    fn timed_out(&self) -> ConnectError {
        let error = io::Error::new(io::ErrorKind::TimedOut, "nothing comes in time");
        ConnectError::Silent(self.target, error)
    }

    fn not_nvme(&self, what: &'static str) -> ConnectError {
        ConnectError::NotNvme(self.target, what)
    }

    #[cfg(test)]
    pub(super) fn hurry(&mut self, patience: Duration) {
        self.deadline = Instant::now() + patience;
    }
}

/// A command of fabrics without data.
fn fabrics(kind: u8) -> [u8; 64] {
    let mut entry = [0; 64];
    (entry[0], entry[1], entry[4]) = (FABRICS, WITH_DESCRIPTION, kind);
    entry
}

fn describe(entry: &mut [u8; 64], kind: u8, length: usize) {
    entry[32..36].copy_from_slice(&(length as u32).to_le_bytes());
    entry[39] = kind;
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::test_target::{self, Behaviour};
    use super::*;

    fn open(behaviour: Behaviour) -> Result<Association, ConnectError> {
        let target = test_target::start(behaviour);
        let name = "nqn.2014-08.org.nvmexpress:disk".parse().unwrap();
        Association::open(target, &name, HostIdentity(Uuid::nil()))
    }

    #[test]
    fn a_target_says_why_not() {
        open(Behaviour::default()).unwrap();
        let refused = |status, result| {
            let refusal = Behaviour {
                connect: (status, result),
                ..Behaviour::default()
            };
            open(refusal).unwrap_err().to_string()
        };
        let said = refused(0x182, 0x1_0100);
        assert!(said.contains("no subsystem of that name"), "{said}");
        let said = refused(0x184, 0x1_0200);
        assert!(said.contains("does not allow this host"), "{said}");
        for (status, result) in [(0x191, 0), (0, 1 << 17)] {
            let said = refused(status, result);
            assert!(said.contains("wants authentication"), "{said}");
        }
        let said = refused(0x181, 0);
        assert!(said.contains("0x181"), "{said}");
    }

    #[test]
    fn whoever_is_no_target_is_told_apart() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        let name = Nqn::discovery();
        let error = Association::open(address, &name, HostIdentity(Uuid::nil())).unwrap_err();
        assert!(matches!(error, ConnectError::Unreachable(..)), "{error}");
        let raw = |bytes: &[u8]| {
            let error = open(Behaviour {
                raw: Some(bytes.to_vec()),
                ..Behaviour::default()
            });
            error.unwrap_err()
        };
        let error = raw(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n");
        assert!(matches!(error, ConnectError::NotNvme(..)), "{error}");
        let error = raw(b"");
        assert!(matches!(error, ConnectError::Silent(..)), "{error}");
        assert!(error.to_string().contains("hangs up"), "{error}");
    }

    #[test]
    fn a_target_that_says_nothing_is_not_waited_for() {
        let target = test_target::start(Behaviour {
            stops: true,
            ..Behaviour::default()
        });
        let name = Nqn::discovery();
        let mut association = Association::open(target, &name, HostIdentity(Uuid::nil())).unwrap();
        association.hurry(Duration::from_millis(20));
        let error = association.enable().unwrap_err();
        assert!(error.to_string().contains("in time"), "{error}");
    }
}
