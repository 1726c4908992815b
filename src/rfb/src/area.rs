//! Parts of a screen.

/// A rectangle of pixels, without its right and lower edge. It may be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Area {
    pub left: u16,
    pub top: u16,
    pub right: u16,
    pub bottom: u16,
}

impl Area {
    /// A rectangle as RFB gives it. What lies beyond 65535 does not exist on any screen.
    pub fn new(x: u16, y: u16, width: u16, height: u16) -> Self {
        Self {
            left: x,
            top: y,
            right: x.saturating_add(width),
            bottom: y.saturating_add(height),
        }
    }

    /// The smallest that holds both.
    pub fn hull(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }
}
