//! Disks and images as answers.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use lodge_manager::Download;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};

use crate::wire::reply;

/// Media type of content that is sent as it is.
pub const BINARY: &str = "application/octet-stream";

/// What there is to know about downloads.
pub const DOWNLOAD: &str = "Only what is allocated is read; holes of a raw disk are sent as zeroes. With a length where that is known before: \
     not for `vmdk`, which is compressed on its way. An answer that breaks off is not complete.";

/// Schema of such content.
pub fn binary() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
        .into()
}

/// The content as it is made.
pub fn answer(download: Download) -> Response {
    let mut pieces = download.pieces;
    let body = Body::from_stream(stream::poll_fn(move |context| pieces.poll_recv(context)));
    let response = reply::with(body.into_response(), CONTENT_TYPE, BINARY);
    // Names are letters, digits and dashes.
    let disposition = format!("attachment; filename=\"{}\"", download.file_name);
    let response = reply::with(response, CONTENT_DISPOSITION, &disposition);
    match download.length {
        Some(length) => reply::with(response, CONTENT_LENGTH, &length.to_string()),
        None => response,
    }
}
