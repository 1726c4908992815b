//! The last bytes of an endless stream, addressed by their position in it.

/// Keeps the last `capacity` bytes. Grows to that as it fills.
pub(super) struct Ring {
    bytes: Vec<u8>,
    capacity: usize,
    /// Bytes ever written.
    end: u64,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            bytes: Vec::new(),
            capacity,
            end: 0,
        }
    }

    /// Position after the newest byte.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Position of the oldest byte kept.
    pub(super) fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        for chunk in data.chunks(self.capacity) {
            self.push_chunk(chunk);
        }
    }

    fn push_chunk(&mut self, data: &[u8]) {
        let room = self.capacity - self.bytes.len();
        let grow = data.len().min(room);
        // While growing, the next position is the end of the vector, as nothing has wrapped yet.
        let (fresh, rest) = data.split_at(grow);
        self.bytes.extend_from_slice(fresh);
        self.end += grow as u64;
        if rest.is_empty() {
            return;
        }
        let at = self.index(self.end);
        let first = rest.len().min(self.capacity - at);
        self.bytes[at..at + first].copy_from_slice(&rest[..first]);
        self.bytes[..rest.len() - first].copy_from_slice(&rest[first..]);
        self.end += rest.len() as u64;
    }

    /// What is kept from `position` on, in two pieces. `position` is between start and end.
    pub(super) fn slices(&self, position: u64) -> (&[u8], &[u8]) {
        let position = position.clamp(self.start(), self.end);
        let length = (self.end - position) as usize;
        if length == 0 {
            return (&[], &[]);
        }
        let at = self.index(position);
        let first = length.min(self.bytes.len() - at);
        (&self.bytes[at..at + first], &self.bytes[..length - first])
    }

    fn index(&self, position: u64) -> usize {
        (position % self.capacity as u64) as usize
    }
}
