//! A target as tests want it: well-behaved or not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// What it does.
#[derive(Debug, Clone, Default)]
pub(super) struct Behaviour {
    /// Status and result of the connect command.
    pub(super) connect: (u16, u64),
    /// It sends these bytes and hangs up.
    pub(super) raw: Option<Vec<u8>>,
    /// It says nothing after the connection was made.
    pub(super) stops: bool,
    /// The log page that it has.
    pub(super) log: Vec<u8>,
}

/// Serves one connection.
pub(super) fn start(behaviour: Behaviour) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        if let Ok((stream, _)) = listener.accept() {
            // It ends when the other side does.
            let _ = serve(stream, &behaviour);
        }
    });
    address
}

fn serve(mut stream: TcpStream, behaviour: &Behaviour) -> std::io::Result<()> {
    let mut request = [0; 128];
    stream.read_exact(&mut request)?;
    if let Some(bytes) = &behaviour.raw {
        return stream.write_all(bytes);
    }
    request[0] = 1;
    stream.write_all(&request)?;
    loop {
        let mut head = [0; 72];
        stream.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let mut data = vec![0; length - 72];
        stream.read_exact(&mut data)?;
        let entry = &head[8..];
        let (status, result) = match (entry[0], entry[4]) {
            (0x7f, 1) => {
                assert_eq!(data.len(), 1024);
                assert!(data[256..].starts_with(b"nqn.") && data[512..].starts_with(b"nqn."));
                behaviour.connect
            }
            _ if behaviour.stops => {
                let _ = stream.read(&mut [0]);
                return Ok(());
            }
            (0x7f, _) => (0, 1),
            (0x02, _) => {
                send_log(&mut stream, entry, &behaviour.log)?;
                (0, 0)
            }
            _ => (1, 0),
        };
        let mut unit = vec![5, 0, 24, 0, 24, 0, 0, 0];
        unit.extend(u64::to_le_bytes(result));
        unit.extend([0, 0, 0, 0, entry[2], entry[3]]);
        unit.extend(u16::to_le_bytes(status << 1));
        stream.write_all(&unit)?;
    }
}

/// In two units, as far as there is something.
fn send_log(stream: &mut TcpStream, entry: &[u8], log: &[u8]) -> std::io::Result<()> {
    let words = u32::from_le_bytes([entry[42], entry[43], entry[44], entry[45]]);
    let (length, at) = (
        (words as usize + 1) * 4,
        entry[49] as usize * 256 + entry[50] as usize * 65536,
    );
    let Some(part) = log.get(at..at + length) else {
        // Something else than it was asked for.
        return stream.write_all(&[9, 0, 8, 0, 8, 0, 0, 0]);
    };
    let half = length / 2;
    for (offset, bytes) in [(0, &part[..half]), (half, &part[half..])] {
        let mut unit = vec![7, 0, 24, 24];
        unit.extend(u32::to_le_bytes(24 + bytes.len() as u32));
        unit.extend([entry[2], entry[3], 0, 0]);
        unit.extend(u32::to_le_bytes(offset as u32));
        unit.extend(u32::to_le_bytes(bytes.len() as u32));
        unit.extend([0; 4]);
        unit.extend(bytes);
        stream.write_all(&unit)?;
    }
    Ok(())
}
