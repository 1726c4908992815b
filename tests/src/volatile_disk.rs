//! A disk with a write cache, which is lost when the power is cut: an NBD server (the protocol is that of
//! github.com/NetworkBlockDevice/nbd, doc/proto.md) that QEMU takes a machine's disk from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// The longest request that is answered.
const MOST: u32 = 32 << 20;

/// Flags of a transmission: there are flags, FLUSH, FUA and TRIM.
const FLAGS: u16 = 1 | 4 | 8 | 32;

/// A request is to be durable before its answer.
const FUA: u16 = 1;

/// The disk, for one machine after the other.
pub struct VolatileDisk {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
}

/// What is durable, and what was written since the last flush.
struct State {
    file: File,
    size: u64,
    cache: BTreeMap<u64, [u8; SECTOR]>,
}

impl VolatileDisk {
    /// Serves a file on a socket beside it.
    ///
    /// # Errors
    /// When the file or the socket cannot be opened.
    pub fn serve(path: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let size = file.metadata()?.len();
        let socket = path.with_extension("nbd");
        let listener = UnixListener::bind(&socket).context("the disk's socket")?;
        let state = Arc::new(Mutex::new(State {
            file,
            size,
            cache: BTreeMap::new(),
        }));
        let served = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // It ends when the machine does.
                let _ = answer(stream, &served);
            }
        });
        Ok(Self { socket, state })
    }

    /// Where QEMU finds it.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The power has gone, and with it the cache; but of each 4096 bytes there `survives` says whether they had been written
    /// by then. Returns how many sectors were lost.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn cut(&self, mut survives: impl FnMut() -> bool) -> Result<usize> {
        let mut state = lock(&self.state);
        let (mut block, mut kept, mut lost) = (None, false, 0);
        for (sector, content) in std::mem::take(&mut state.cache) {
            let this = sector / (4096 / SECTOR as u64);
            if block.replace(this) != Some(this) {
                kept = survives();
            }
            if kept {
                state.file.write_all_at(&content, sector * SECTOR as u64)?;
            } else {
                lost += 1;
            }
        }
        Ok(lost)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)?;
        let first = offset / SECTOR as u64;
        let end = first + (buffer.len() / SECTOR) as u64;
        for (sector, content) in self.cache.range(first..end) {
            let at = (sector - first) as usize * SECTOR;
            buffer[at..at + SECTOR].copy_from_slice(content);
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, content: &[u8]) {
        let first = offset / SECTOR as u64;
        for (number, sector) in content.chunks_exact(SECTOR).enumerate() {
            let mut kept = [0; SECTOR];
            kept.copy_from_slice(sector);
            self.cache.insert(first + number as u64, kept);
        }
    }

    /// Not into the cache, but to where it stays.
    fn write_through(&mut self, offset: u64, content: &[u8]) -> io::Result<()> {
        let first = offset / SECTOR as u64;
        let written = first..first + (content.len() / SECTOR) as u64;
        self.cache.retain(|sector, _| !written.contains(sector));
        self.file.write_all_at(content, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        for (sector, content) in std::mem::take(&mut self.cache) {
            self.file.write_all_at(&content, sector * SECTOR as u64)?;
        }
        Ok(())
    }

    /// Whether the disk has these whole sectors.
    fn has(&self, offset: u64, length: u32) -> bool {
        let whole = |bytes: u64| bytes.is_multiple_of(SECTOR as u64);
        let end = offset.checked_add(length.into());
        whole(offset)
            && whole(length.into())
            && length <= MOST
            && end.is_some_and(|end| end <= self.size)
    }
}

/// Talks to one machine until it goes.
fn answer(stream: UnixStream, state: &Mutex<State>) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    if negotiate(&mut reader, &mut writer, lock(state).size)? {
        while request(&mut reader, &mut writer, state)? {}
    }
    Ok(())
}

fn number<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Returns whether the machine wants the disk.
fn negotiate(reader: &mut impl Read, writer: &mut impl Write, size: u64) -> io::Result<bool> {
    const IHAVEOPT: &[u8; 8] = b"IHAVEOPT";
    const ABORT: u32 = 2;
    const INFO: u32 = 6;
    const GO: u32 = 7;
    writer.write_all(&[&b"NBDMAGIC"[..], IHAVEOPT, &3_u16.to_be_bytes()].concat())?;
    let _client: [u8; 4] = number(reader)?;
    loop {
        if number::<8>(reader)? != *IHAVEOPT {
            return Ok(false);
        }
        let option = u32::from_be_bytes(number(reader)?);
        let length = u32::from_be_bytes(number(reader)?).min(MOST);
        io::copy(&mut reader.take(length.into()), &mut io::sink())?;
        let mut reply = |kind: u32, data: &[u8]| {
            let magic = 0x0003_e889_0455_65a9_u64.to_be_bytes();
            let length = (data.len() as u32).to_be_bytes();
            let parts = [
                &magic[..],
                &option.to_be_bytes(),
                &kind.to_be_bytes(),
                &length,
                data,
            ];
            writer.write_all(&parts.concat())
        };
        match option {
            GO | INFO => {
                let export = [
                    &0_u16.to_be_bytes()[..],
                    &size.to_be_bytes(),
                    &FLAGS.to_be_bytes(),
                ];
                reply(3, &export.concat())?;
                reply(1, &[])?;
                if option == GO {
                    return Ok(true);
                }
            }
            ABORT => {
                reply(1, &[])?;
                return Ok(false);
            }
            _ => reply(0x8000_0001, &[])?,
        }
    }
}

/// Answers one request; returns whether there may be another.
fn request(
    reader: &mut impl Read,
    writer: &mut impl Write,
    state: &Mutex<State>,
) -> io::Result<bool> {
    const INVALID: u32 = 22;
    const FAILED: u32 = 5;
    let _magic: [u8; 4] = number(reader)?;
    let flags = u16::from_be_bytes(number(reader)?);
    let kind = u16::from_be_bytes(number(reader)?);
    let handle: [u8; 8] = number(reader)?;
    let offset = u64::from_be_bytes(number(reader)?);
    let length = u32::from_be_bytes(number(reader)?);
    let mut data = vec![
        0;
        if kind <= 1 {
            length.min(MOST) as usize
        } else {
            0
        }
    ];
    if kind == 1 {
        reader.read_exact(&mut data)?;
    }
    let mut state = lock(state);
    let done = match kind {
        0 if state.has(offset, length) => state.read(offset, &mut data),
        1 if state.has(offset, length) && flags & FUA != 0 => state.write_through(offset, &data),
        1 if state.has(offset, length) => {
            state.write(offset, &data);
            Ok(())
        }
        2 => return Ok(false),
        3 => state.flush(),
        // What is discarded may still be read.
        4 => Ok(()),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    let error = match done {
        Ok(()) => 0,
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => INVALID,
        Err(_) => FAILED,
    };
    let mut answer = [
        &0x6744_6698_u32.to_be_bytes()[..],
        &error.to_be_bytes(),
        &handle,
    ]
    .concat();
    if kind == 0 && error == 0 {
        answer.extend(data);
    }
    writer.write_all(&answer)?;
    Ok(true)
}
