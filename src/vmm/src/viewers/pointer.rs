//! A viewer's pointer: the tablet where the guest has a driver for it, else the mouse.

use lodge_devices::i8042::{
    BUTTON_BACK, BUTTON_LEFT, BUTTON_MIDDLE, BUTTON_RIGHT, MouseEvent, MouseHandle,
};
use lodge_devices::virtio::input::{FARTHEST, Report, TabletHandle};

/// Buttons of RFB that stand for a turn of the wheel, up and down, each as it goes down.
const WHEEL_UP: u8 = 1 << 3;
const WHEEL_DOWN: u8 = 1 << 4;

/// The buttons of RFB that are buttons, and what they are to a mouse and a tablet.
const BUTTONS: [(u8, u8); 4] = [
    (1 << 0, BUTTON_LEFT),
    (1 << 1, BUTTON_MIDDLE),
    (1 << 2, BUTTON_RIGHT),
    (1 << 7, BUTTON_BACK),
];

/// One viewer's pointer. A clone is another viewer's. Dropped, it lets go of its buttons.
pub struct Pointer {
    mouse: MouseHandle,
    tablet: TabletHandle,
    /// Where it was last, once it was anywhere.
    at: Option<Place>,
    /// Buttons as RFB gives them.
    buttons: u8,
}

/// A place on a screen.
#[derive(Debug, Clone, Copy)]
struct Place {
    x: u16,
    y: u16,
    /// Width and height of the screen.
    size: (u16, u16),
}

impl Pointer {
    /// A pointer that was nowhere yet.
    pub fn new(mouse: MouseHandle, tablet: TabletHandle) -> Self {
        Self {
            mouse,
            tablet,
            at: None,
            buttons: 0,
        }
    }

    /// It is at a place on a screen of a size, with buttons down as RFB gives them.
    pub fn act(&mut self, (x, y): (u16, u16), size: (u16, u16), buttons: u8) {
        let place = Place { x, y, size };
        let before = self.at.replace(place).unwrap_or(place);
        let pressed = buttons & !std::mem::replace(&mut self.buttons, buttons);
        let turn = |button| i32::from(pressed & button != 0);
        let up = turn(WHEEL_UP) - turn(WHEEL_DOWN);
        if self.tablet.report(place.report(up, buttons)) {
            return;
        }
        // The mouse goes as far; the guest's own pointer keeps up as well as its acceleration lets it.
        self.mouse.event(MouseEvent {
            dx: i32::from(x) - i32::from(before.x),
            dy: i32::from(y) - i32::from(before.y),
            wheel: -up,
            buttons: mouse_buttons(buttons),
        });
    }
}

impl Place {
    fn report(self, wheel: i32, buttons: u8) -> Report {
        let (width, height) = self.size;
        Report {
            x: place_on_tablet(self.x.into(), width.into()),
            y: place_on_tablet(self.y.into(), height.into()),
            wheel,
            buttons: mouse_buttons(buttons),
        }
    }
}

/// A pixel as a place on the tablet: the first is its first edge, the last the other.
pub fn place_on_tablet(pixel: u32, pixels: u32) -> u16 {
    let last = u64::from(pixels.saturating_sub(1)).max(1);
    let place = (u64::from(pixel) * u64::from(FARTHEST) + last / 2) / last;
    u16::try_from(place).unwrap_or(FARTHEST)
}

fn mouse_buttons(buttons: u8) -> u8 {
    let held = BUTTONS.iter().filter(|(button, _)| buttons & button != 0);
    held.fold(0, |held, (_, button)| held | button)
}

impl Clone for Pointer {
    fn clone(&self) -> Self {
        Self::new(self.mouse.clone(), self.tablet.clone())
    }
}

impl Drop for Pointer {
    fn drop(&mut self) {
        if let Some(Place { x, y, size }) = self.at
            && mouse_buttons(self.buttons) != 0
        {
            self.act((x, y), size, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_of_the_screen_are_those_of_the_tablet() {
        for pixels in [2, 640, 1024, 8192, u32::MAX] {
            assert_eq!(place_on_tablet(0, pixels), 0);
            assert_eq!(place_on_tablet(pixels - 1, pixels), FARTHEST);
        }
        assert_eq!(place_on_tablet(400, 801), FARTHEST.div_ceil(2));
        assert_eq!(place_on_tablet(0, 1), 0);
        assert_eq!(place_on_tablet(0, 0), 0);
    }

    /// As drivers scale: every pixel is hit.
    #[test]
    fn every_pixel_of_a_screen_has_its_place() {
        for pixels in [640_u32, 800, 1024, 1280, 1920, 3840] {
            for pixel in 0..pixels {
                let place = place_on_tablet(pixel, pixels);
                let back = f64::from(place) * f64::from(pixels - 1) / f64::from(FARTHEST);
                assert_eq!(back.round() as u32, pixel);
            }
        }
    }

    #[test]
    fn buttons_are_known_by_their_names() {
        assert_eq!(mouse_buttons(0b101), BUTTON_LEFT | BUTTON_RIGHT);
        assert_eq!(mouse_buttons(0b1000_0010), BUTTON_BACK | BUTTON_MIDDLE);
        assert_eq!(mouse_buttons(0b0111_1000), 0);
    }
}
