//! A connection to NATS: its options, from the command line, the environment and context files of the `nats` command.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{env, fs};

use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, ConnectOptions, Event};
use serde_json::Value;

/// The first server version whose conditional writes are relied on.
const VERSION_MIN: (u64, u64) = (2, 11);
/// The longest wait for an answer. A new leader takes 5 to 6 seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(12);
/// The longest pause between two attempts to connect.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Between two looks whether the connection was lost, while an answer is awaited.
pub(crate) const LOOK_FOR_LOSSES: Duration = Duration::from_millis(100);
/// Publications without an answer yet; a wave is smaller.
const IN_FLIGHT: usize = 4096;

/// An error of NATS, as the caller has to treat it.
#[derive(Debug)]
pub enum NatsError {
    /// The server can't be reached, or does not answer. It may be there later.
    Away(String),
    /// It will not be different later: the server, the bucket or the options are wrong.
    Wrong(String),
}

impl fmt::Display for NatsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(text) | Self::Wrong(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for NatsError {}

/// A text for an error, with its causes.
pub(crate) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The options of a connection.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct Connect {
    /// A context of the `nats` command, from ~/.config/nats/context; by default the selected one, if no URL is given
    #[arg(long, value_name = "NAME", env = "NATS_CONTEXT")]
    pub context: Option<String>,
    /// A file with credentials (JWT and NKey)
    #[arg(long, value_name = "FILE", env = "NATS_CREDS")]
    pub creds: Option<PathBuf>,
    /// A file with an NKey seed
    #[arg(long, value_name = "FILE", env = "NATS_NKEY")]
    pub nkey: Option<PathBuf>,
    /// A user name; or a token, if there is no --password
    #[arg(long, value_name = "NAME", env = "NATS_USER")]
    pub user: Option<String>,
    /// The user's password; better in the variable, which other users can't see
    #[arg(long, value_name = "PASSWORD", env = "NATS_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
    /// A token; better in the variable
    #[arg(long, value_name = "TOKEN", env = "NATS_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// A certificate of this client, PEM
    #[arg(long, value_name = "FILE", env = "NATS_CERT", requires = "tlskey")]
    pub tlscert: Option<PathBuf>,
    /// The private key of --tlscert, PEM
    #[arg(long, value_name = "FILE", env = "NATS_KEY")]
    pub tlskey: Option<PathBuf>,
    /// The authorities that may sign the server's certificate, PEM
    #[arg(long, value_name = "FILE", env = "NATS_CA")]
    pub tlsca: Option<PathBuf>,
    /// Begin with TLS, before the server says anything
    #[arg(long)]
    pub tlsfirst: bool,
    /// The JetStream domain
    #[arg(long, value_name = "NAME")]
    pub js_domain: Option<String>,
    /// The prefix of this client's inboxes, if its permissions need one
    #[arg(long, value_name = "PREFIX")]
    pub inbox_prefix: Option<String>,
}

impl Connect {
    /// Fills what is not given from a context file. The URL that is used: the one that is given, the context's, or that of a local
    /// server.
    ///
    /// # Errors
    /// [`NatsError::Wrong`]: there is no such context, or it can't be read.
    pub fn resolve(&mut self, url: Option<String>) -> Result<String, NatsError> {
        const LOCAL: &str = "nats://127.0.0.1:4222";
        let Some(directory) = config_directory() else { return Ok(url.unwrap_or_else(|| LOCAL.into())) };
        let selected = || {
            let name = fs::read_to_string(directory.join("context.txt")).ok()?.trim().to_owned();
            (!name.is_empty()).then_some(name)
        };
        let name = self.context.clone().or_else(|| if url.is_none() { selected() } else { None });
        let Some(name) = name else { return Ok(url.unwrap_or_else(|| LOCAL.into())) };
        if name.contains('/') || name.starts_with('.') {
            return Err(NatsError::Wrong(format!(
                "`{name}` is no name of a context; use one of `nats context ls`"
            )));
        }
        let path = directory.join("context").join(format!("{name}.json"));
        let wrong = |why: String| {
            NatsError::Wrong(format!("context {name}: {}: {why}; see `nats context ls`", path.display()))
        };
        let text = fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
        let fields: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let text_of = |field: &str| {
            fields.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let file_of = |field: &str| text_of(field).map(|text| expand(&text));
        let has_login =
            self.creds.is_some() || self.nkey.is_some() || self.user.is_some() || self.token.is_some();
        if !has_login {
            self.creds = file_of("creds");
            self.nkey = file_of("nkey");
            self.user = text_of("user");
            self.password = self.password.take().or_else(|| text_of("password"));
            self.token = text_of("token");
        }
        if self.tlscert.is_none() {
            self.tlscert = file_of("cert");
            self.tlskey = file_of("key");
        }
        self.tlsca = self.tlsca.take().or_else(|| file_of("ca"));
        self.js_domain = self.js_domain.take().or_else(|| text_of("jetstream_domain"));
        self.inbox_prefix = self.inbox_prefix.take().or_else(|| text_of("inbox_prefix"));
        self.tlsfirst |= fields.get("tls_first").and_then(Value::as_bool).unwrap_or(false);
        Ok(url.or_else(|| text_of("url")).unwrap_or_else(|| LOCAL.into()))
    }

    fn options(&self) -> Result<ConnectOptions, NatsError> {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|error| NatsError::Wrong(format!("{}: {error}", path.display())))
        };
        let mut options = ConnectOptions::new();
        if let Some(path) = &self.creds {
            let text = read(path)?;
            options = options
                .credentials(&text)
                .map_err(|error| NatsError::Wrong(format!("{}: no credentials: {error}", path.display())))?;
        }
        if let Some(path) = &self.nkey {
            options = options.nkey(read(path)?.trim().to_owned());
        }
        match (&self.user, &self.password) {
            (Some(user), Some(password)) => {
                options = options.user_and_password(user.clone(), password.clone())
            }
            // As the `nats` command has it.
            (Some(user), None) => options = options.token(user.clone()),
            (None, Some(_)) => {
                return Err(NatsError::Wrong("a password is given without a user; add --user".into()));
            }
            (None, None) => {}
        }
        if let Some(token) = &self.token {
            options = options.token(token.clone());
        }
        if let (Some(cert), Some(key)) = (&self.tlscert, &self.tlskey) {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        if let Some(path) = &self.tlsca {
            options = options.add_root_certificates(path.clone());
        }
        if self.tlsfirst {
            options = options.tls_first();
        }
        if let Some(prefix) = &self.inbox_prefix {
            options = options.custom_inbox_prefix(prefix);
        }
        Ok(options)
    }
}

fn config_directory() -> Option<PathBuf> {
    let config = env::var_os("XDG_CONFIG_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))?;
    Some(config.join("nats"))
}

/// A path of a context file, which may begin with `~/`.
fn expand(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => text.into(),
    }
}

/// A connection, with the runtime that drives it.
pub struct Connection {
    runtime: tokio::runtime::Runtime,
    /// The client.
    pub client: Client,
    /// JetStream.
    pub jetstream: Context,
    losses: Arc<AtomicU64>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("server", &self.server()).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects to one of the servers: `nats://a,b:4222,tls://c`. From then on the client connects again by itself, with growing pauses.
    ///
    /// # Errors
    /// [`NatsError::Away`]: none of them answers; [`NatsError::Wrong`]: the login is refused, or the server is too old.
    pub fn open(url: &str, connect: &Connect) -> Result<Self, NatsError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| NatsError::Wrong(format!("no runtime: {error}")))?;
        let servers: Vec<&str> = url.split(',').map(str::trim).filter(|server| !server.is_empty()).collect();
        for server in &servers {
            server.parse::<async_nats::ServerAddr>().map_err(|error| {
                NatsError::Wrong(format!(
                    "`{server}` is no address of a server ({error}); use one such as nats://host:4222"
                ))
            })?;
        }
        if servers.is_empty() {
            return Err(NatsError::Wrong(format!(
                "`{url}` names no server; use one such as nats://host:4222"
            )));
        }
        let losses = Arc::new(AtomicU64::new(0));
        let seen = losses.clone();
        let options = connect
            .options()?
            .name("recstore-nats")
            .connection_timeout(Duration::from_secs(5))
            .request_timeout(Some(ANSWER_WITHIN))
            .client_capacity(2 * IN_FLIGHT)
            .subscription_capacity(64 << 10)
            .reconnect_delay_callback(|attempts| PAUSE_MAX.min(Duration::from_millis(50 << attempts.min(7))))
            .event_callback(move |event| {
                if matches!(event, Event::Disconnected) {
                    seen.fetch_add(1, Ordering::Relaxed);
                }
                async {}
            });
        let client = runtime.block_on(options.connect(servers)).map_err(|error| {
            let text = format!("{url}: {}", with_causes(&error));
            match error.kind() {
                async_nats::ConnectErrorKind::Authentication
                | async_nats::ConnectErrorKind::AuthorizationViolation
                | async_nats::ConnectErrorKind::ServerParse
                | async_nats::ConnectErrorKind::Tls => NatsError::Wrong(text),
                _ => NatsError::Away(text),
            }
        })?;
        let builder = ContextBuilder::new()
            .timeout(ANSWER_WITHIN)
            .ack_timeout(ANSWER_WITHIN)
            .max_ack_inflight(IN_FLIGHT);
        let jetstream = {
            let _inside = runtime.enter(); // The context starts a task.
            match &connect.js_domain {
                Some(domain) => builder.domain(domain).build(client.clone()),
                None => builder.build(client.clone()),
            }
        };
        let connection = Self { runtime, client, jetstream, losses };
        connection.check_version()?;
        Ok(connection)
    }

    /// Runs the client until this is done.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Runs the client until this is done, or until the connection is lost: the answer to what was asked before does not come any more.
    ///
    /// # Errors
    /// Those of the work; [`NatsError::Away`] if the connection is lost.
    pub fn ask<T>(&self, work: impl Future<Output = Result<T, NatsError>>) -> Result<T, NatsError> {
        let losses = self.losses();
        let mut work = std::pin::pin!(work);
        self.run(async {
            loop {
                match tokio::time::timeout(LOOK_FOR_LOSSES, &mut work).await {
                    Ok(done) => return done,
                    Err(_) if self.losses() != losses => {
                        return Err(NatsError::Away("the connection was lost".into()));
                    }
                    Err(_) => {}
                }
            }
        })
    }

    /// Lets the client answer the server for a moment, and read what came.
    pub fn breathe(&self) {
        self.run(async { tokio::time::sleep(Duration::from_millis(1)).await });
    }

    /// Times that the connection was lost.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// The server, in words.
    #[must_use]
    pub fn server(&self) -> String {
        let info = self.client.server_info();
        format!("{} ({}), version {}", info.server_name, info.host, info.version)
    }

    /// Refuses a server that is too old. The client may connect to another one at any time, so this is asked again.
    ///
    /// # Errors
    /// [`NatsError::Wrong`]: it is too old; or has no JetStream.
    pub fn check_version(&self) -> Result<(), NatsError> {
        let info = self.client.server_info();
        let mut parts = info.version.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        let version: (u64, u64) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if version < VERSION_MIN {
            return Err(NatsError::Wrong(format!(
                "server {} has version {}, and {}.{} is needed (older ones have accepted conflicting writes); update the server",
                info.server_name, info.version, VERSION_MIN.0, VERSION_MIN.1
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_with_their_causes_once() {
        let inner = NatsError::Away("inner".into());
        assert_eq!(with_causes(&inner), "inner");
    }

    #[test]
    fn what_names_no_server_is_refused_before_any_connection() {
        for url in ["", ",", " , "] {
            assert!(
                matches!(Connection::open(url, &Connect::default()), Err(NatsError::Wrong(_))),
                "{url:?}"
            );
        }
    }
}
