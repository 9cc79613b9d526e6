//! Long poll over processes: requests that wait until a key of a store changes, whichever process writes it.
//!
//!     cargo run --manifest-path examples/axum/Cargo.toml -- pages.rec 8080 &
//!     curl -i localhost:8080/pages/news                          404, and the version 0
//!     curl -i 'localhost:8080/pages/news?after=0&wait=30' &      waits
//!     recstore write pages.rec pages/news 'It rains.'            by another process: the request returns
//!     curl -X PUT --data 'It snows.' localhost:8080/pages/news   by this one, or by another server on the same store
//!
//! `GET /SPACE/KEY` gives the value, and its version in the header `etag`. With `after=VERSION` it waits until the key has another
//! version, for `wait` seconds at most (30 by default), and then gives 304. A waiting request is a task: one thread of the process waits for
//! all of them. Ctrl-C ends the server at once: waiting requests are dropped.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use recstore::{OwnedWatch, Store};
use serde::Deserialize;

/// Seconds that a request waits if it does not say how long.
const WAIT_DEFAULT: u64 = 30;
const WAIT_MAX: u64 = 600;

#[derive(Deserialize)]
struct Poll {
    /// The version that the client has; 0: none.
    after: Option<u64>,
    /// Seconds.
    wait: Option<u64>,
}

type Answer = ([(HeaderName, String); 1], Vec<u8>);

/// An error of the store, as a response.
struct Failed(recstore::Error);

impl From<recstore::Error> for Failed {
    fn from(error: recstore::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let code = match &self.0 {
            recstore::Error::InvalidOption { .. } | recstore::Error::KeyTooLong { .. } => {
                StatusCode::BAD_REQUEST
            }
            recstore::Error::EntryTooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            recstore::Error::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            recstore::Error::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (code, format!("{}\n", self.0)).into_response()
    }
}

/// The value and its version; or 404 and the version 0.
fn value(store: &Store, space: &str, key: &str) -> Result<(StatusCode, Answer), Failed> {
    let answer = |version: u64, data| ([(header::ETAG, format!("\"{version}\""))], data);
    Ok(match store.space(space)?.get(key)? {
        Some(record) => (StatusCode::OK, answer(record.version().get(), record.into())),
        None => (StatusCode::NOT_FOUND, answer(0, b"no such key\n".to_vec())),
    })
}

fn version_of(watch: &OwnedWatch) -> u64 {
    watch.version().map_or(0, u64::from)
}

async fn read(
    State(store): State<Arc<Store>>,
    Path((space, key)): Path<(String, String)>,
    Query(poll): Query<Poll>,
) -> Result<Response, Failed> {
    if let Some(after) = poll.after {
        let mut watch = store.watch_key_owned(&space, &key)?;
        if version_of(&watch) == after {
            let wait = Duration::from_secs(poll.wait.unwrap_or(WAIT_DEFAULT).min(WAIT_MAX));
            match tokio::time::timeout(wait, watch.changed()).await {
                Ok(changed) => _ = changed?,
                Err(_elapsed) => return Ok(StatusCode::NOT_MODIFIED.into_response()),
            }
        }
    }
    Ok(value(&store, &space, &key)?.into_response())
}

async fn write(
    State(store): State<Arc<Store>>,
    Path((space, key)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Failed> {
    let version = store.space(&space)?.put(&key, &body)?;
    Ok((StatusCode::NO_CONTENT, [(header::ETAG, format!("\"{}\"", version.get()))]).into_response())
}

async fn delete(
    State(store): State<Arc<Store>>,
    Path((space, key)): Path<(String, String)>,
) -> Result<StatusCode, Failed> {
    let was_there = store.space(&space)?.delete(&key)?;
    Ok(if was_there { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND })
}

async fn serve(store: Arc<Store>, port: u16) -> std::io::Result<()> {
    let routes =
        Router::new().route("/{space}/{*key}", get(read).put(write).delete(delete)).with_state(store);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}/SPACE/KEY", listener.local_addr()?);
    tokio::select! {
        served = async { axum::serve(listener, routes).await } => served,
        ended = tokio::signal::ctrl_c() => ended,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let (Some(path), port, None) = (args.next(), args.next(), args.next()) else {
        return Err("usage: recstore-axum STORE [PORT]".into());
    };
    let port = port.map_or(Ok(8080), |port| port.to_string_lossy().parse())?;
    // A writer that is stopped in a region makes a request fail, and not hang.
    let options = Store::options().lock_timeout(Some(Duration::from_secs(5)));
    let store = Arc::new(options.open_or_create(path)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(serve(Arc::clone(&store), port));
    drop(runtime); // Requests that wait are dropped, and so are their watches.
    served?;
    if let Some(store) = Arc::into_inner(store) {
        store.close()?;
    }
    Ok(())
}
