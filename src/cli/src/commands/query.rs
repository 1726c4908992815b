//! `lodge query METHOD PATH`: the API as it is.

use std::io::{Read, Write};

use clap::Args;
use http::Method;
use lodge_client::ClientError;

use crate::context::Context;
use crate::output::{self, Format};
use crate::target::RemoteName;

#[derive(Debug, Args)]
pub(crate) struct Query {
    /// GET, POST, PUT, PATCH or DELETE
    method: String,
    /// Path like /v1/vms, or a full one with a query
    path: String,
    /// JSON body; @FILE reads a file, @- standard input
    #[arg(short, long)]
    data: Option<String>,
    /// Only change this revision: the ETag of an earlier answer
    #[arg(long)]
    if_match: Option<String>,
    /// The host; the default remote without it
    #[arg(long)]
    remote: Option<RemoteName>,
    /// Print status and headers before the body
    #[arg(short, long)]
    include: bool,
}

pub(crate) async fn run(context: &Context, query: Query) -> Result<(), ClientError> {
    let client = context.client(query.remote.as_ref().map(|name| name.0.as_str()))?;
    let method = Method::from_bytes(query.method.to_uppercase().as_bytes())
        .map_err(|_| ClientError::Usage(format!("\"{}\" is not an HTTP method", query.method)))?;
    let body = query.data.as_deref().map(read_body).transpose()?;
    let response = client
        .raw(
            method,
            &query.path,
            body.map(Into::into),
            query.if_match.as_deref(),
        )
        .await?;
    if query.include {
        println!("{}", response.status);
        for (name, value) in &response.headers {
            println!("{name}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
        println!();
    }
    match serde_json::from_slice::<serde_json::Value>(&response.body) {
        Ok(value) => {
            let format = if context.format == Format::Yaml {
                Format::Yaml
            } else {
                Format::Json
            };
            output::structured(format, &value)
        }
        Err(_) => std::io::stdout()
            .write_all(&response.body)
            .map_err(|source| ClientError::File {
                path: "standard output".to_owned(),
                source,
            }),
    }
}

fn read_body(data: &str) -> Result<Vec<u8>, ClientError> {
    let failed = |source| ClientError::File {
        path: data.trim_start_matches('@').to_owned(),
        source,
    };
    match data.strip_prefix('@') {
        None => Ok(data.as_bytes().to_vec()),
        Some("-") => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .lock()
                .read_to_end(&mut bytes)
                .map_err(failed)?;
            Ok(bytes)
        }
        Some(file) => std::fs::read(file).map_err(failed),
    }
}
