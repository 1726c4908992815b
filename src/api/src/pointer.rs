//! Where a guest's pointer goes.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where to point, and what to press there: the body of `POST /v1/vms/{vm}:pointer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmPointer {
    /// Pixels to the left of the place, as a screenshot has them.
    pub x: u32,
    /// Rows above it.
    pub y: u32,
    /// A button to press and release there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub click: Option<PointerButton>,
}

/// A button of a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PointerButton {
    /// The one that selects.
    Left,
    /// The wheel, pressed.
    Middle,
    /// The one for menus.
    Right,
}

/// A text that is no [`PointerButton`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there are left, middle and right")]
pub struct PointerButtonError;

impl FromStr for PointerButton {
    type Err = PointerButtonError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "left" => Ok(Self::Left),
            "middle" => Ok(Self::Middle),
            "right" => Ok(Self::Right),
            _ => Err(PointerButtonError),
        }
    }
}
