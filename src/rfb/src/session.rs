//! One viewer's session.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::area::Area;
use crate::encoding::{DESKTOP_SIZE, Encoder, Encoding, QEMU_KEYS};
use crate::format::{PixelFormat, Pixels};
use crate::handshake::{GREETING, VERSION_BYTES, Version};
use crate::message::{self, Message};
use crate::tiles::Tiles;
use crate::update::{Rows, Run, Update, put_header, put_rectangle};
use crate::{Input, Picture, Violation};

/// Where the conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Version,
    Security(Version),
    /// The viewer says whether it wants to be alone.
    Init,
    Running,
}

/// A session over pictures of the kind `P`.
///
/// In turns: [`Session::receive`] what has arrived; send [`Session::output`]; and while [`Session::wants_picture`], let it
/// [`look`](Session::look) at the screen from time to time.
pub struct Session<P> {
    name: String,
    stage: Stage,
    /// A message that has not arrived as a whole.
    input: Vec<u8>,
    /// Bytes of a clipboard still to come.
    skip: usize,
    output: Vec<u8>,
    /// How much of `output` was sent.
    sent: usize,
    /// The size the viewer was told, once it was.
    size: Option<(u16, u16)>,
    tiles: Tiles,
    rows: Rows,
    /// What the viewer waits for.
    wanted: Option<Area>,
    update: Option<Update<P>>,
    pixels: Arc<Pixels>,
    encoding: Encoding,
    encoder: Encoder,
    /// The viewer follows when the screen changes its size.
    resizes: bool,
    /// The viewer has to hear that it may send keys by their place; it hears that once.
    keys: Offer,
}

/// Something that a viewer asks for and is granted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    Unasked,
    Due,
    Granted,
}

impl<P: Picture> Session<P> {
    /// A session with a viewer that will show `name` to whoever uses it.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            stage: Stage::Version,
            input: Vec::new(),
            skip: 0,
            output: GREETING.to_vec(),
            sent: 0,
            size: None,
            tiles: Tiles::new(0, 0),
            rows: Rows::default(),
            wanted: None,
            update: None,
            pixels: Arc::new(Pixels::new(&PixelFormat::NATIVE)),
            encoding: Encoding::Raw,
            encoder: Encoder::default(),
            resizes: false,
            keys: Offer::Unasked,
        }
    }

    /// Takes what the viewer has sent, in whatever pieces, and passes on what it does.
    ///
    /// # Errors
    /// The session is over then.
    pub fn receive(
        &mut self,
        mut bytes: &[u8],
        mut hear: impl FnMut(Input),
    ) -> Result<(), Violation> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        bytes = &bytes[skipped..];
        self.input.extend_from_slice(bytes);
        let mut done = 0;
        while let Some(length) = self.step(done, &mut hear)? {
            done += length;
            let skipped = self.skip.min(self.input.len() - done);
            self.skip -= skipped;
            done += skipped;
        }
        self.input.drain(..done);
        Ok(())
    }

    /// Whether the session would have something for the viewer if it saw the screen.
    pub fn wants_picture(&self) -> bool {
        let asked = self.wanted.is_some() || self.size.is_none();
        self.stage == Stage::Running && asked && self.update.is_none() && self.is_sent()
    }

    /// Looks at the screen; tells whether there is something to send now. Without it the viewer goes on waiting.
    pub fn look(&mut self, picture: P) -> bool {
        if !self.wants_picture() {
            return false;
        }
        let Some(size) = self.size else {
            self.introduce(picture.size());
            return true;
        };
        if self.resizes && size != picture.size() {
            self.resize(picture.size());
            return true;
        }
        self.begin_update(picture)
    }

    /// What is to be sent next. Empty until something happens.
    pub fn output(&mut self) -> &[u8] {
        if self.is_sent() {
            self.output.clear();
            self.sent = 0;
            self.make_rectangle();
        }
        &self.output[self.sent..]
    }

    /// Notes that the first `count` bytes of [`Session::output`] were sent.
    pub fn sent(&mut self, count: usize) {
        self.sent = self.output.len().min(self.sent.saturating_add(count));
    }

    /// How many bytes of the viewer wait for more.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.input.len()
    }

    fn is_sent(&self) -> bool {
        self.sent == self.output.len()
    }

    /// Does what the bytes from `start` on say; returns how many it were.
    fn step(
        &mut self,
        start: usize,
        hear: &mut impl FnMut(Input),
    ) -> Result<Option<usize>, Violation> {
        let bytes = &self.input[start..];
        match self.stage {
            Stage::Version => {
                let Some(version) = bytes.first_chunk() else {
                    return Ok(None);
                };
                let version = Version::parse(version)?;
                self.output.extend(version.security());
                self.stage = match version {
                    Version::V3_3 => Stage::Init,
                    Version::V3_7 | Version::V3_8 => Stage::Security(version),
                };
                Ok(Some(VERSION_BYTES))
            }
            Stage::Security(version) => {
                let Some(choice) = bytes.first() else {
                    return Ok(None);
                };
                self.output.extend(version.chosen(*choice)?);
                self.stage = Stage::Init;
                Ok(Some(1))
            }
            Stage::Init => {
                let Some(shared) = bytes.first() else {
                    return Ok(None);
                };
                if *shared == 0 {
                    hear(Input::Alone);
                }
                self.stage = Stage::Running;
                Ok(Some(1))
            }
            Stage::Running => {
                let Some((message, length)) = message::parse(bytes)? else {
                    return Ok(None);
                };
                self.obey(message, hear);
                Ok(Some(length))
            }
        }
    }

    fn obey(&mut self, message: Message, hear: &mut impl FnMut(Input)) {
        match message {
            Message::SetPixelFormat(format) => self.pixels = Arc::new(Pixels::new(&format)),
            Message::SetEncodings(listed) => self.set_encodings(&listed),
            Message::UpdateRequest { incremental, area } => self.request(incremental, area),
            Message::Key { keysym, pressed } => hear(Input::Key { keysym, pressed }),
            Message::Keycode { code, pressed } => hear(Input::Keycode { code, pressed }),
            Message::Pointer { x, y, buttons } => {
                if let Some(size) = self.size {
                    let (x, y) = (x.min(size.0 - 1), y.min(size.1 - 1));
                    hear(Input::Pointer {
                        x,
                        y,
                        size,
                        buttons,
                    });
                }
            }
            // Guests have no clipboard.
            Message::CutText(length) => self.skip = length as usize,
        }
    }

    fn set_encodings(&mut self, listed: &[i32]) {
        self.encoding = Encoding::choose(listed);
        self.resizes = listed.contains(&DESKTOP_SIZE);
        if self.keys == Offer::Unasked && listed.contains(&QEMU_KEYS) {
            self.keys = Offer::Due;
        }
    }

    /// Several requests are answered as one.
    fn request(&mut self, incremental: bool, area: Area) {
        if !incremental {
            self.tiles.forget(area);
        }
        self.wanted = Some(self.wanted.map_or(area, |wanted| wanted.hull(area)));
    }

    /// Tells size, format and name (RFC 6143, 7.3.2).
    fn introduce(&mut self, size: (u16, u16)) {
        self.set_size(size);
        self.output.extend(size.0.to_be_bytes());
        self.output.extend(size.1.to_be_bytes());
        self.output.extend(PixelFormat::NATIVE.to_bytes());
        // Names are short.
        self.output.extend((self.name.len() as u32).to_be_bytes());
        self.output.extend(self.name.as_bytes());
    }

    /// Tells a new size; the viewer asks for the picture next.
    fn resize(&mut self, size: (u16, u16)) {
        self.set_size(size);
        self.wanted = None;
        put_header(1, &mut self.output);
        put_rectangle(0..size.0, 0..size.1, DESKTOP_SIZE, &mut self.output);
    }

    fn set_size(&mut self, size: (u16, u16)) {
        self.size = Some(size);
        self.tiles = Tiles::new(size.0, size.1);
    }

    fn begin_update(&mut self, picture: P) -> bool {
        let (Some(area), Some((width, _))) = (self.wanted, self.size) else {
            return false;
        };
        let mut runs = VecDeque::new();
        for band in self.tiles.bands(area) {
            let pixels = self.rows.read(&picture, self.tiles.rows(band), width);
            let changed = self.tiles.changed(band, area, pixels);
            runs.extend(changed.into_iter().map(|across| Run { band, across }));
        }
        let keys = self.keys == Offer::Due;
        if runs.is_empty() && !keys {
            return false;
        }
        // Half of the tiles of the largest screen fit.
        put_header(runs.len() as u16 + u16::from(keys), &mut self.output);
        if keys {
            self.keys = Offer::Granted;
            put_rectangle(0..0, 0..0, QEMU_KEYS, &mut self.output);
        }
        self.wanted = None;
        self.update = Some(Update {
            picture,
            runs,
            pixels: Arc::clone(&self.pixels),
            encoding: self.encoding,
        });
        true
    }

    /// Makes the next rectangle of the update under way.
    fn make_rectangle(&mut self) {
        let (Some(update), Some((width, _))) = (&mut self.update, self.size) else {
            return;
        };
        let (tiles, rows) = (&mut self.tiles, &mut self.rows);
        update.make(tiles, width, rows, &mut self.encoder, &mut self.output);
        if update.runs.is_empty() {
            self.update = None;
        }
    }
}
