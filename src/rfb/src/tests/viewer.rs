//! A viewer: it speaks version 3.8, and keeps the pixels as they came.

use flate2::{Decompress, FlushDecompress};

use super::*;
use crate::format::{FORMAT_BYTES, PixelFormat, Pixels};

pub const RAW: i32 = 0;
pub const ZRLE: i32 = 16;
pub const DESKTOP_SIZE: i32 = -223;
pub const QEMU_KEYS: i32 = -258;

/// A viewer and its server.
pub struct Viewer {
    pub session: Session<Screen>,
    pub screen: Screen,
    pub size: (u16, u16),
    pub heard: Vec<Input>,
    format: PixelFormat,
    /// The viewer's screen: each pixel as it was sent last.
    pixels: Vec<Vec<u8>>,
    stream: Decompress,
}

/// What an update held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// x, y, width and height of rectangles with pixels.
    pub areas: Vec<[u16; 4]>,
    pub resized: bool,
    pub keys: bool,
}

/// Reads fields off the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn long(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }
}

impl Viewer {
    /// A viewer past the handshake.
    pub fn new(screen: &Screen) -> Self {
        let mut session = Session::new("web");
        assert_eq!(drain(&mut session), b"RFB 003.008\n");
        session.receive(b"RFB 003.008\n", ignore).unwrap();
        assert_eq!(drain(&mut session), [1, 1]);
        session.receive(&[1], ignore).unwrap();
        assert_eq!(drain(&mut session), [0; 4]);
        session.receive(&[1], ignore).unwrap();
        assert!(session.wants_picture());
        assert!(session.look(screen.clone()));
        let told = drain(&mut session);
        let mut bytes = Bytes(&told);
        let size = (bytes.word(), bytes.word());
        let format: [u8; FORMAT_BYTES] = bytes.take(FORMAT_BYTES).try_into().unwrap();
        let length = bytes.long() as usize;
        assert_eq!(bytes.take(length), b"web");
        assert!(bytes.0.is_empty());
        let mut viewer = Self {
            session,
            screen: screen.clone(),
            size,
            heard: Vec::new(),
            format: PixelFormat::parse(&format).unwrap(),
            pixels: Vec::new(),
            stream: Decompress::new(true),
        };
        viewer.clear();
        viewer
    }

    fn clear(&mut self) {
        let count = usize::from(self.size.0) * usize::from(self.size.1);
        self.pixels = vec![Vec::new(); count];
    }

    pub fn send(&mut self, bytes: &[u8]) {
        let heard = &mut self.heard;
        self.session
            .receive(bytes, |input| heard.push(input))
            .unwrap();
    }

    pub fn set_encodings(&mut self, encodings: &[i32]) {
        let mut message = vec![2, 0];
        message.extend((encodings.len() as u16).to_be_bytes());
        message.extend(encodings.iter().flat_map(|number| number.to_be_bytes()));
        self.send(&message);
    }

    pub fn set_format(&mut self, bytes: [u8; FORMAT_BYTES]) {
        self.send(&[&[0, 0, 0, 0][..], &bytes].concat());
        self.format = PixelFormat::parse(&bytes).unwrap();
    }

    pub fn request(&mut self, incremental: bool, area: [u16; 4]) {
        let mut message = vec![3, u8::from(incremental)];
        message.extend(area.iter().flat_map(|side| side.to_be_bytes()));
        self.send(&message);
    }

    /// Asks for all of the screen.
    pub fn request_all(&mut self, incremental: bool) {
        self.request(incremental, [0, 0, self.size.0, self.size.1]);
    }

    /// Lets the server look, and takes the update if there is one.
    pub fn update(&mut self) -> Option<Seen> {
        if !self.session.look(self.screen.clone()) {
            assert!(drain(&mut self.session).is_empty());
            return None;
        }
        let sent = drain(&mut self.session);
        let mut bytes = Bytes(&sent);
        assert_eq!(bytes.take(2), [0, 0]);
        let mut seen = Seen::default();
        for _ in 0..bytes.word() {
            self.rectangle(&mut bytes, &mut seen);
        }
        assert!(bytes.0.is_empty(), "{} bytes too many", bytes.0.len());
        Some(seen)
    }

    fn rectangle(&mut self, bytes: &mut Bytes, seen: &mut Seen) {
        let area = [bytes.word(), bytes.word(), bytes.word(), bytes.word()];
        match bytes.long() as i32 {
            RAW => self.raw(area, bytes),
            ZRLE => self.zrle(area, bytes),
            DESKTOP_SIZE => {
                seen.resized = true;
                self.size = (area[2], area[3]);
                self.clear();
                return;
            }
            QEMU_KEYS => {
                seen.keys = true;
                return;
            }
            other => panic!("encoding {other}"),
        }
        seen.areas.push(area);
    }

    fn raw(&mut self, [x, y, width, height]: [u16; 4], bytes: &mut Bytes) {
        let length = self.whole(0).len();
        for row in y..y + height {
            for column in x..x + width {
                *self.pixel(column, row) = bytes.take(length).to_vec();
            }
        }
    }

    fn zrle(&mut self, [x, y, width, height]: [u16; 4], bytes: &mut Bytes) {
        let length = bytes.long() as usize;
        let plain = self.inflate(bytes.take(length));
        let mut plain = Bytes(&plain);
        for top in (y..y + height).step_by(64) {
            for left in (x..x + width).step_by(64) {
                let (right, bottom) = ((left + 64).min(x + width), (top + 64).min(y + height));
                self.tile([left, top, right, bottom], &mut plain);
            }
        }
        assert!(plain.0.is_empty());
    }

    fn inflate(&mut self, data: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let start = self.stream.total_in();
        loop {
            plain.reserve(1 << 16);
            let rest = &data[(self.stream.total_in() - start) as usize..];
            let before = plain.len();
            self.stream
                .decompress_vec(rest, &mut plain, FlushDecompress::Sync)
                .unwrap();
            if plain.len() == before {
                assert_eq!((self.stream.total_in() - start) as usize, data.len());
                return plain;
            }
        }
    }

    fn tile(&mut self, [left, top, right, bottom]: [u16; 4], plain: &mut Bytes) {
        let length = self.compact(0).len();
        let kind = plain.byte();
        match kind {
            0 => {
                for row in top..bottom {
                    for column in left..right {
                        *self.pixel(column, row) = plain.take(length).to_vec();
                    }
                }
            }
            1..=16 => {
                let colours = (0..kind).map(|_| plain.take(length).to_vec());
                let colours: Vec<_> = colours.collect();
                let bits = match kind {
                    1 => 0,
                    2 => 1,
                    3 | 4 => 2,
                    _ => 4,
                };
                for row in top..bottom {
                    let columns = usize::from(right - left);
                    let packed = plain.take((columns * bits).div_ceil(8));
                    for column in 0..columns {
                        let index = match bits {
                            0 => 0,
                            _ => {
                                packed[column * bits / 8] >> (8 - bits - column * bits % 8)
                                    & ((1 << bits) - 1)
                            }
                        };
                        *self.pixel(left + column as u16, row) =
                            colours[usize::from(index)].clone();
                    }
                }
            }
            other => panic!("subencoding {other}"),
        }
    }

    fn pixel(&mut self, x: u16, y: u16) -> &mut Vec<u8> {
        &mut self.pixels[usize::from(y) * usize::from(self.size.0) + usize::from(x)]
    }

    fn whole(&self, colour: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        Pixels::new(&self.format).put(colour, &mut bytes);
        bytes
    }

    fn compact(&self, colour: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        Pixels::new(&self.format).put_compact(colour, &mut bytes);
        bytes
    }

    /// Where the viewer's screen is not the server's.
    pub fn difference(&self) -> Option<(u16, u16)> {
        let pixels = Pixels::new(&self.format);
        for y in 0..self.size.1 {
            for x in 0..self.size.0 {
                let shown =
                    &self.pixels[usize::from(y) * usize::from(self.size.0) + usize::from(x)];
                let (mut whole, mut compact) = (Vec::new(), Vec::new());
                pixels.put(self.screen.get(x, y), &mut whole);
                pixels.put_compact(self.screen.get(x, y), &mut compact);
                if *shown != whole && *shown != compact {
                    return Some((x, y));
                }
            }
        }
        None
    }
}
