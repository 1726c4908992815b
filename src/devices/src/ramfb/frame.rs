//! A picture, and where it differs from another.

/// Width and height of a tile, but for those at the right and lower edge.
pub const TILE: u32 = 64;

/// A picture taken at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    width: u32,
    height: u32,
    pixels: Vec<u32>,
}

/// A part of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Pixels to the left of it.
    pub x: u32,
    /// Rows above it.
    pub y: u32,
    /// Its width in pixels.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
}

impl Frame {
    /// A picture of `width` times `height` pixels, if it has that many.
    pub fn new(width: u32, height: u32, pixels: Vec<u32>) -> Option<Self> {
        let count = u64::from(width) * u64::from(height);
        (count > 0 && count == pixels.len() as u64).then_some(Self {
            width,
            height,
            pixels,
        })
    }

    /// Pixels of a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Number of rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The pixels, row after row from the top left without padding, as 0x00RRGGBB.
    pub fn pixels(&self) -> &[u32] {
        &self.pixels
    }

    /// The part of a row that lies in a tile of this picture; nothing outside of it.
    pub fn row(&self, y: u32, tile: Tile) -> &[u32] {
        let width = self.width as usize;
        let Some(row) = self.pixels.chunks_exact(width).nth(y as usize) else {
            return &[];
        };
        let end = tile.x.saturating_add(tile.width).min(self.width);
        row.get(tile.x as usize..end as usize).unwrap_or_default()
    }

    /// The tiles where this picture differs from `previous`, row after row: all, if that had
    /// another size.
    pub fn tiles_differing(&self, previous: &Self) -> Vec<Tile> {
        let same_size = (self.width, self.height) == (previous.width, previous.height);
        let tiles = self.tiles();
        tiles
            .filter(|tile| !same_size || self.differs(previous, *tile))
            .collect()
    }

    /// All tiles of the picture.
    fn tiles(&self) -> impl Iterator<Item = Tile> {
        let columns = (0..self.width).step_by(TILE as usize);
        let rows = (0..self.height).step_by(TILE as usize);
        rows.flat_map(move |y| columns.clone().map(move |x| (x, y)))
            .map(|(x, y)| Tile {
                x,
                y,
                width: TILE.min(self.width - x),
                height: TILE.min(self.height - y),
            })
    }

    fn differs(&self, previous: &Self, tile: Tile) -> bool {
        (tile.y..tile.y + tile.height).any(|y| self.row(y, tile) != previous.row(y, tile))
    }
}
