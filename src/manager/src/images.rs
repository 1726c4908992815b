//! Images: uploaded kernels, initial RAM disks and disk images.

use std::io;

use bytes::Bytes;
use futures_util::Stream;
use lodge_api::Problem;
use lodge_api::image::{Image, ImageUpload};
use lodge_api::page::{ListParams, Page};

use crate::{Caller, IfMatch, Manager};

impl Manager {
    /// By name. Filter fields: `id name kind format sha256`.
    pub fn image_list(&self, params: &ListParams) -> Result<Page<Image>, Problem> {
        let _ = params;
        Err(crate::manager::unfinished())
    }

    /// One image, by name or id.
    pub fn image_view(&self, key: &str) -> Result<Image, Problem> {
        let _ = key;
        Err(crate::manager::unfinished())
    }

    /// Stores an image. Dropping the future, or an error in `body`, leaves nothing behind.
    ///
    /// `declared_len` is the request's Content-Length, by which a lack of space is found at once.
    ///
    /// # Errors
    /// `AlreadyExists`, `PayloadTooLarge`, `NoSpace`, `InvalidContent`, `ChecksumMismatch`;
    /// `InvalidRequest` when the body ends early.
    pub async fn image_upload(
        &self,
        caller: &Caller,
        upload: ImageUpload,
        declared_len: Option<u64>,
        body: impl Stream<Item = Result<Bytes, io::Error>> + Send,
    ) -> Result<Image, Problem> {
        let _ = (caller, upload, declared_len, body);
        Err(crate::manager::unfinished())
    }

    /// Deletes an image no guest names.
    pub async fn image_delete(
        &self,
        caller: &Caller,
        key: &str,
        if_match: IfMatch,
    ) -> Result<(), Problem> {
        let _ = (caller, key, if_match);
        Err(crate::manager::unfinished())
    }
}
