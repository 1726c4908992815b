//! The two images of a host that Lodge is installed on, and updates of them.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// One of the two places for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageSlot {
    /// The first.
    A,
    /// The second.
    B,
}

impl ImageSlot {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }
}

/// When an image starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostImageState {
    /// At every start.
    Default,
    /// When it is chosen in the boot menu, or when the other one cannot be read.
    Spare,
    /// At the next start, for a trial.
    NextTrial,
    /// It runs for a trial, and becomes the default when it has shown that it works.
    OnTrial,
    /// It was tried and did not work. The other one was started instead.
    Failed,
    /// It is being written.
    Writing,
    /// There is none.
    Empty,
}

impl HostImageState {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Spare => "spare",
            Self::NextTrial => "next, on trial",
            Self::OnTrial => "on trial",
            Self::Failed => "failed its trial",
            Self::Writing => "being written",
            Self::Empty => "empty",
        }
    }
}

/// An image on the host's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostImage {
    /// Where it is.
    pub slot: ImageSlot,
    /// Version of Lodge; absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether it is the one that runs.
    pub running: bool,
    /// When it starts.
    pub state: HostImageState,
}

/// Query parameters of `POST /v1/system:update` and `:rollback`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UpdateParams {
    /// Restart the host at once, guests off first. Otherwise the image is tried whenever the host restarts.
    #[serde(default = "yes")]
    #[param(default = true)]
    pub restart: bool,
    /// What becomes of the guests that run, when the host restarts at once.
    #[serde(default)]
    #[param(required = false)]
    pub guests: GuestsMeanwhile,
}

/// Body of `POST /v1/system:fetch_update`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateFetch {
    /// Where the signed file is, `https` or `http`.
    pub url: String,
    /// Restart the host at once, guests off first. Otherwise the image is tried whenever the host restarts.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub restart: bool,
    /// What becomes of the guests that run, when the host restarts at once.
    #[serde(default)]
    pub guests: GuestsMeanwhile,
}

/// What becomes of running guests while the host restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuestsMeanwhile {
    /// They are saved to the disk, and go on afterwards where they were. Those that cannot be saved are powered off.
    #[default]
    Suspend,
    /// They are powered off. Those that start with the host are started again.
    PowerOff,
}

impl GuestsMeanwhile {
    /// As in a query.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::PowerOff => "power_off",
        }
    }
}

fn yes() -> bool {
    true
}

/// Answer to `POST /v1/system:update` and `POST /v1/system:rollback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Updated {
    /// The image that starts next.
    pub slot: ImageSlot,
    /// Its version.
    pub version: String,
    /// Whether the host restarts now.
    pub restarts: bool,
}
