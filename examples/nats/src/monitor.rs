//! A look at the monitoring port of a server (`http_port`): how often it flushes what it acknowledged.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(3);
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Asks the port at `http://HOST:PORT` for the server's flushes. `None`: each acknowledged write is on its disk. Otherwise what a user should
/// know, in words.
#[must_use]
pub fn warning(url: &str) -> Option<String> {
    let asked = ask(url);
    let config = match &asked {
        Ok(jsz) => jsz.get("config"),
        Err(why) => return Some(format!("{url}: {why}; so it is not known when the server flushes")),
    };
    let Some(config) = config else {
        return Some(format!("{url}: the server has no JetStream"));
    };
    if config.get("sync_always").and_then(Value::as_bool) == Some(true) {
        return None;
    }
    let seconds =
        config.get("sync_interval").and_then(Value::as_u64).unwrap_or(120_000_000_000) / 1_000_000_000;
    Some(format!(
        "{url}: the server flushes every {seconds} s, so a loss of power there can undo acknowledged writes; set `sync_interval: always`, \
         or compare with --verify after such a loss"
    ))
}

fn ask(url: &str) -> Result<Value, String> {
    let rest = url.strip_prefix("http://").ok_or("not an address such as http://host:8222")?;
    let host = rest.split('/').next().unwrap_or_default();
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:8222") };
    let text = |error: std::io::Error| error.to_string();
    let address = with_port.to_socket_addrs().map_err(text)?.next().ok_or("no such host")?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(text)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(text)?;
    // HTTP/1.0: the answer ends with the connection, and has no chunks.
    write!(stream, "GET /jsz?config=true HTTP/1.0\r\nHost: {host}\r\n\r\n").map_err(text)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(text)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer of HTTP")?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(format!("answers `{}`", head.lines().next().unwrap_or_default()));
    }
    serde_json::from_str(body).map_err(|error| format!("answers no JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_asked_is_a_warning() {
        for url in ["https://localhost:1", "http://127.0.0.1:1", "nonsense"] {
            assert!(warning(url).unwrap().contains("not known"), "{url}");
        }
    }
}
