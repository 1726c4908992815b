//! Content that the host fetches by itself.

use std::io;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use lodge_api::{ErrorCode, Problem};
use lodge_client::{Authority, FetchError, Fetcher, fetch_url};
use lodge_manager::{Fetch, Fetched};

use crate::app::App;

/// What methods of this kind have in common.
pub const FETCHES: &str = "The operation goes on when nobody waits for it, and can be cancelled. `https` servers need a certificate \
    that a public authority vouches for, or one of `/v1/authorities`; `http` is taken as well. Redirections are followed, and a transfer that breaks \
    off is taken up again where the server can do that. The host does not reach itself, nor addresses of its link alone.";

/// What is at a URL, asked for when the manager is ready for it.
///
/// # Errors
/// `InvalidRequest` for what is no URL of a kind that is fetched.
pub fn fetch_of(app: &App, url: &str) -> Result<Fetch, Problem> {
    let url = fetch_url(url).map_err(|error| problem(&error).with_pointer("/url"))?;
    let fetcher = fetcher(app);
    Ok(Box::pin(async move {
        let fetched = fetcher.fetch(&url).await.map_err(|error| problem(&error))?;
        let broken = |error: io::Error| {
            io::Error::other(Problem::new(ErrorCode::FetchFailed, error.to_string()))
        };
        Ok(Fetched {
            length: fetched.length,
            body: fetched.pieces.map_err(broken).boxed(),
        })
    }))
}

/// One that trusts whom the host trusts now.
fn fetcher(app: &App) -> Arc<Fetcher> {
    let certificates = app.manager().authority_certificates();
    if certificates.is_empty() {
        return app.fetcher();
    }
    let authorities = certificates.iter().map(|pem| Authority::from_pem(pem));
    // They were read when they were added.
    let authorities: Vec<Authority> = authorities.flatten().collect();
    Arc::new(Fetcher::trusting(&authorities))
}

fn problem(error: &FetchError) -> Problem {
    let code = match error {
        FetchError::Url(_) => ErrorCode::InvalidRequest,
        FetchError::Failed(_) => ErrorCode::FetchFailed,
    };
    Problem::new(code, error.to_string())
}
