//! Web sessions in a space: processes that serve requests share them by their keys. With `--kill`, one process after another is
//! killed with `kill -9` in the middle of a request, and another one is started in its place: no view that was counted is lost.
//!
//! ```text
//! cargo run --release --example sessions -- --kill
//! ```

use std::env;
use std::path::Path;
use std::process::ExitCode;

use recstore::{Action, Error, Store};

use common::{Failure, WRITER, Writer, check};

mod common;

const SERVERS: u64 = 3;
const USERS: u64 = 100;
/// Requests that a server answers.
const REQUESTS: u64 = 2_000;
/// With `--kill`: so many servers are killed, each after so many answers.
const DEATHS: u64 = 20;
const ANSWERS_BEFORE_DEATH: u64 = 200;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => demonstrate(false),
        ["--kill"] => demonstrate(true),
        [WRITER, store, server] => serve(store, server),
        _ => Err("usage: sessions [--kill]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("sessions: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// A server process: a request begins a user's session or counts a view in it, and the tenth view ends it.
fn serve(store: &str, server: &str) -> Result<(), Failure> {
    let store = Store::open(store)?;
    let (sessions, views) = (store.space("sessions")?, store.space("views")?);
    let server: u64 = server.parse()?;
    for n in 0..REQUESTS {
        let user = format!("user:{}", (server * 31 + n * 7) % USERS);
        let seen: u8 = sessions.modify(&user, |session| {
            let seen = session.map_or(0, |session| session[0]) + 1;
            Ok::<_, Error>(if seen < 10 { (Action::Put([seen]), seen) } else { (Action::Delete, seen) })
        })?;
        views.update(&user, |old| Some((number(old) + 1).to_le_bytes()))?;
        println!("{user} {seen}"); // The answer.
    }
    Ok(())
}

fn number(bytes: Option<&[u8]>) -> u64 {
    bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn demonstrate(kill: bool) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("sessions.rec");
    let store = Store::create(&path)?;
    let mut servers = (0..SERVERS).map(|server| start(&path, server)).collect::<Result<Vec<_>, _>>()?;
    let mut answers = 0;
    let mut deaths = 0;
    if kill {
        for server in SERVERS..SERVERS + DEATHS {
            let mut victim = start(&path, server)?;
            for _ in 0..ANSWERS_BEFORE_DEATH {
                check(victim.next_line()?.is_some(), || format!("server {server} is at work"))?;
            }
            victim.kill()?;
            answers += ANSWERS_BEFORE_DEATH;
            // What it had answered and we had not read yet counts too.
            while victim.next_line()?.is_some() {
                answers += 1;
            }
            deaths += 1;
        }
    }
    for server in &mut servers {
        while server.next_line()?.is_some() {
            answers += 1;
        }
    }
    for server in servers {
        server.finish()?;
    }
    let mut views = 0;
    for found in store.space("views")?.iter() {
        views += number(Some(found?.1.data()));
    }
    check((answers..=answers + deaths).contains(&views), || {
        format!(
            "the {views} views are the {answers} answers and at most one more for each of {deaths} deaths"
        )
    })?;
    for found in store.space("sessions")?.iter() {
        let (user, session) = found?;
        check((1..10).contains(&session[0]), || format!("the session of {} is whole", user.escape_ascii()))?;
    }
    println!(
        "{answers} answers to {USERS} users by {} processes, of which {deaths} were killed: no view is lost",
        SERVERS + deaths
    );
    Ok(store.close()?)
}

fn start(path: &Path, server: u64) -> Result<Writer, Failure> {
    Writer::start([path.to_path_buf(), server.to_string().into()])
}
