//! Samples, and what is shown of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::peer::Peer;
use crate::{Settings, machine};

/// What a figure is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Less,
    More,
}

struct Row {
    name: String,
    unit: &'static str,
    better: Better,
    size: usize,
    /// By peer: its samples, and what else was seen.
    samples: Vec<(Peer, Vec<f64>, BTreeMap<String, Vec<f64>>)>,
}

pub struct Report {
    peers: Vec<Peer>,
    records: Vec<(usize, u64)>,
    settings: serde_json::Value,
    rows: Vec<Row>,
    failed: Vec<String>,
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    (sorted[n / 2] + sorted[(n - 1) / 2]) / 2.0
}

/// Three figures that count.
fn short(x: f64) -> String {
    match x.abs() {
        x if x == 0.0 => "0".to_owned(),
        x if x >= 100.0 => {
            let digits = format!("{x:.0}");
            let mut out = String::new();
            for (i, c) in digits.chars().enumerate() {
                if i > 0 && (digits.len() - i).is_multiple_of(3) {
                    out.push(',');
                }
                out.push(c);
            }
            out
        }
        x if x >= 10.0 => format!("{x:.1}"),
        x if x >= 0.1 => format!("{x:.2}"),
        x => format!("{x:.3}"),
    }
}

impl Report {
    pub fn new(settings: &Settings) -> Self {
        Self {
            peers: settings.peers.clone(),
            records: settings.sizes.iter().map(|&size| (size, settings.records(size))).collect(),
            settings: json!({
                "quick": settings.quick, "rounds": settings.rounds, "cpu_time": settings.by_cpu,
                "measure_seconds": settings.span.measure.as_secs_f64(),
            }),
            rows: Vec::new(),
            failed: Vec::new(),
        }
    }

    pub fn add(
        &mut self,
        name: &str,
        unit: &'static str,
        better: Better,
        size: usize,
        peer: Peer,
        value: f64,
    ) {
        let at = self.rows.iter().position(|row| row.name == name && row.size == size).unwrap_or_else(|| {
            self.rows.push(Row { name: name.to_owned(), unit, better, size, samples: Vec::new() });
            self.rows.len() - 1
        });
        let samples = &mut self.rows[at].samples;
        match samples.iter_mut().find(|s| s.0 == peer) {
            Some(s) => s.1.push(value),
            None => samples.push((peer, vec![value], BTreeMap::new())),
        }
    }

    /// Notes something beside a row's figure.
    pub fn note(&mut self, name: &str, size: usize, peer: Peer, what: &str, value: f64) {
        let row = self.rows.iter_mut().find(|row| row.name == name && row.size == size);
        if let Some(s) = row.and_then(|row| row.samples.iter_mut().find(|s| s.0 == peer)) {
            s.2.entry(what.to_owned()).or_default().push(value);
        }
    }

    pub fn fail(&mut self, name: &str, size: usize, peer: Peer) {
        let what = format!("{} could not do {name} at {size} bytes", peer.name());
        eprintln!("{what}");
        if !self.failed.contains(&what) {
            self.failed.push(what);
        }
    }

    /// The table of one record size.
    pub fn table(&self, size: usize) -> String {
        let mut out = String::new();
        let n = self.records.iter().find(|r| r.0 == size).map_or(0, |r| r.1);
        writeln!(
            out,
            "\n### {} bytes, {} records: median (least - most)\n",
            short(size as f64),
            short(n as f64)
        )
        .unwrap();
        let names: Vec<&str> = self.peers.iter().map(|p| p.name()).collect();
        writeln!(out, "| workload | unit | {} | best peer | recstore to best |", names.join(" | ")).unwrap();
        writeln!(out, "| --- | --- |{} --- | --- |", " ---: |".repeat(names.len())).unwrap();
        for row in self.rows.iter().filter(|row| row.size == size) {
            write!(out, "| {} | {} |", row.name, row.unit).unwrap();
            for &peer in &self.peers {
                match row.samples.iter().find(|s| s.0 == peer) {
                    Some((_, samples, extra)) => {
                        let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
                        let most = samples.iter().copied().fold(0.0, f64::max);
                        write!(out, " {} ({} - {})", short(median(samples)), short(least), short(most))
                            .unwrap();
                        for (what, values) in extra.iter().filter(|e| !e.0.starts_with('.')) {
                            write!(out, "; {what} {}", short(median(values))).unwrap();
                        }
                        out.push_str(" |");
                    }
                    None => out.push_str(" - |"),
                }
            }
            let value = |peer| row.samples.iter().find(|s| s.0 == peer).map(|s| median(&s.1));
            let others = row.samples.iter().filter(|s| !s.0.is_bound() && s.0 != Peer::Recstore);
            let ranked = others.map(|s| (s.0, median(&s.1)));
            let best = match row.better {
                Better::Less => ranked.min_by(|a, b| a.1.total_cmp(&b.1)),
                Better::More => ranked.max_by(|a, b| a.1.total_cmp(&b.1)),
            };
            match (value(Peer::Recstore), best) {
                (Some(ours), Some((peer, theirs))) => {
                    let of = if row.better == Better::Less { "of its time" } else { "of its rate" };
                    let of = if row.unit.starts_with("bytes") { "of its size" } else { of };
                    writeln!(out, " {} | {}x {of} |", peer.name(), short(ours / theirs)).unwrap();
                }
                _ => writeln!(out, " - | - |").unwrap(),
            }
        }
        for failed in self.failed.iter().filter(|f| f.ends_with(&format!("at {size} bytes"))) {
            writeln!(out, "\n{failed}.").unwrap();
        }
        out
    }

    /// What each peer promises.
    pub fn promises(&self) -> String {
        let mut out = String::from("\n| peer | what it promises here |\n| --- | --- |\n");
        for peer in &self.peers {
            writeln!(out, "| {} | {} |", peer.name(), peer.promise()).unwrap();
        }
        let versions: Vec<String> = machine::versions().iter().map(|(n, v)| format!("{n} {v}")).collect();
        writeln!(out, "\n{}", versions.join(", ")).unwrap();
        out
    }

    /// Every sample as JSON.
    pub fn write(&self, path: &Path, took: Duration) {
        let rows: Vec<_> = self
            .rows
            .iter()
            .flat_map(|row| row.samples.iter().map(move |s| (row, s)))
            .map(|(row, (peer, samples, extra))| {
                json!({
                    "workload": row.name, "size": row.size, "peer": peer.name(), "unit": row.unit,
                    "better": if row.better == Better::Less { "less" } else { "more" },
                    "median": median(samples), "samples": samples, "beside": extra,
                })
            })
            .collect();
        let all = json!({
            "machine": machine::describe(), "settings": self.settings, "seconds": took.as_secs_f64(),
            "records": self.records, "failed": self.failed, "results": rows,
            "promises": self.peers.iter().map(|p| (p.name(), p.promise())).collect::<BTreeMap<_, _>>(),
        });
        std::fs::write(path, serde_json::to_string_pretty(&all).unwrap()).unwrap();
    }
}
