//! What a target offers to this host (NVMe-oF 1.1a, section 5).

use std::net::SocketAddr;

use super::{Association, ConnectError, HostIdentity, Nqn};

/// The log page with it.
const LOG: u8 = 0x70;

/// Bytes of its header and of each entry.
const ENTRY: usize = 1024;

/// Entries that are asked for at once.
const AT_ONCE: usize = 8;

/// Most entries that are listed.
const MOST: u64 = 256;

/// Something that is offered. Texts are the target's, without what a terminal would make something else of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Name of the subsystem.
    pub nqn: String,
    /// `tcp`, `rdma`, `fc` or a number.
    pub transport: String,
    /// Where it is.
    pub address: String,
    /// On which port.
    pub port: String,
    /// It is another discovery service.
    pub is_discovery: bool,
}

/// Asks a target what it offers to this host: 256 subsystems at most.
///
/// # Errors
/// [`ConnectError`].
pub fn discover(target: SocketAddr, host: HostIdentity) -> Result<Vec<Offer>, ConnectError> {
    let mut association = Association::open(target, &Nqn::discovery(), host)?;
    association.enable()?;
    let mut header = [0; ENTRY];
    association.log_page(LOG, 0, &mut header)?;
    let mut left = number(&header, 8).min(MOST) as usize;
    let mut offers = Vec::new();
    let mut page = vec![0; AT_ONCE * ENTRY];
    while left > 0 {
        let now = left.min(AT_ONCE);
        let part = &mut page[..now * ENTRY];
        part.fill(0);
        association.log_page(LOG, ((offers.len() + 1) * ENTRY) as u64, part)?;
        offers.extend(part.chunks_exact(ENTRY).map(parse));
        left -= now;
    }
    Ok(offers)
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

fn parse(entry: &[u8]) -> Offer {
    Offer {
        nqn: text(&entry[256..512]),
        transport: match entry[0] {
            1 => "rdma".to_owned(),
            2 => "fc".to_owned(),
            3 => "tcp".to_owned(),
            other => other.to_string(),
        },
        address: text(&entry[512..768]),
        port: text(&entry[32..64]),
        // 2: a subsystem with disks; 1: a referral, 3: the service itself.
        is_discovery: entry[2] != 2,
    }
}

/// ASCII, with blanks or zeroes behind it.
fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let plain = text.iter().map(|byte| match byte {
        0x20..=0x7e => char::from(*byte),
        _ => '?',
    });
    plain.collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::test_target::{self, Behaviour};
    use super::*;

    fn page(entries: usize, declared: u64) -> Vec<u8> {
        let mut page = vec![0; ENTRY];
        page[8..16].copy_from_slice(&declared.to_le_bytes());
        for number in 0..entries {
            let mut entry = vec![0; ENTRY];
            (entry[0], entry[2]) = (3, 2);
            entry[32..37].copy_from_slice(b"4420 ");
            let nqn = format!("nqn.2014-08.org:disk-{number}\u{1b}[31m");
            entry[256..256 + nqn.len()].copy_from_slice(nqn.as_bytes());
            entry[512..520].copy_from_slice(b"10.0.0.9");
            page.extend(entry);
        }
        page
    }

    fn ask(page: Vec<u8>) -> Result<Vec<Offer>, ConnectError> {
        let behaviour = Behaviour {
            log: page,
            ..Behaviour::default()
        };
        discover(test_target::start(behaviour), HostIdentity(Uuid::nil()))
    }

    #[test]
    fn what_is_offered() {
        let offers = ask(page(19, 19)).unwrap();
        assert_eq!(offers.len(), 19);
        assert_eq!(offers[18].nqn, "nqn.2014-08.org:disk-18?[31m");
        let first = &offers[0];
        assert_eq!((&*first.address, &*first.port), ("10.0.0.9", "4420"));
        assert!(first.transport == "tcp" && !first.is_discovery);
        assert!(ask(page(0, 0)).unwrap().is_empty());
    }

    #[test]
    fn as_many_as_a_target_says_are_not_believed() {
        assert_eq!(ask(page(300, u64::MAX)).unwrap().len(), 256);
        // It ends before that.
        let error = ask(page(3, 1 << 40)).unwrap_err();
        assert!(matches!(error, ConnectError::NotNvme(..)), "{error}");
    }

    #[test]
    fn other_services_are_told_apart() {
        let mut page = page(1, 1);
        page[ENTRY] = 0xfe;
        page[ENTRY + 2] = 3;
        let offers = ask(page).unwrap();
        assert!(offers[0].is_discovery && offers[0].transport == "254");
    }
}
