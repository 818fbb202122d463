//! `--report`: a page with a timeline, for people who would rather look than read.
//!
//! One file without scripts: it opens anywhere and can be attached to an issue. Times run to the right; servers, what went
//! wrong, locks and clients are below each other, and a red line stands where a checker found something.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::check::NodeView;
use crate::history::{Call, Operation, Outcome};
use crate::player::Player;
use crate::run::{Alarm, Report};
use crate::text;

/// Width of a virtual second, in pixels.
const SECOND: f64 = 48.0;
/// Height of a row of servers or faults.
const ROW: f64 = 22.0;
/// Height of a client's row.
const THIN: f64 = 13.0;
/// Where time begins: left of it are the rows' names.
const LEFT: f64 = 90.0;
/// How long a server's last word counts: longer than between two looks of the observer.
const FRESH: Duration = Duration::from_millis(900);

const STYLE: &str = "
:root { --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --leader: #0b5cad; --follower: #9cc3ea; --learner: #d9b8f0;
        --fault: #e8a33d; --end: #8a5a00; --read: #7fa8c9; --write: #2f7d4f; --unknown: #d1242f; --claim: #6f42c1; }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); margin: 24px; }
h1 { font-size: 20px; margin: 0 0 4px; } h2 { font-size: 15px; margin: 24px 0 6px; }
pre { background: #f6f8fa; border: 1px solid var(--line); border-radius: 6px; padding: 10px; overflow-x: auto;
      font: 12px/1.4 ui-monospace, monospace; }
.good { color: #1a7f37; } .bad { color: #d1242f; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
svg text { font: 11px system-ui, sans-serif; fill: var(--ink); } svg .soft { fill: var(--soft); }
.key span { display: inline-block; margin-right: 14px; } .key i { display: inline-block; width: 12px; height: 12px;
      margin-right: 5px; vertical-align: -2px; border-radius: 2px; }
";

/// The page of a run.
pub fn page(engine: &str, report: &Report, replay: &str) -> String {
    let seed = report.scene.seed;
    let verdict = match report.alarms.first() {
        None => "<span class=\"good\">no violation</span>".to_owned(),
        Some(alarm) => format!("<span class=\"bad\">violation found by {}</span>", alarm.checker),
    };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>quorate: seed {seed}</title>\n\
         <style>{STYLE}</style></head><body>\n<h1>Seed {seed} on {engine}: {verdict}</h1>\n\
         <p>Replay: <code>{}</code></p>\n",
        escaped(replay)
    );
    for Alarm { checker, text, at } in &report.alarms {
        let when = at.map(|at| format!(" at {:.3} s", at.as_secs_f64())).unwrap_or_default();
        page += &format!("<h2 class=\"bad\">[{checker}]{when}</h2>\n<pre>{}</pre>\n", escaped(text));
    }
    page += "<h2>What happened</h2>\n";
    page += &key();
    page += &format!("<div class=\"scroll\">{}</div>\n", timeline(report));
    let happenings: Vec<String> = report.film.happenings.iter().map(ToString::to_string).collect();
    page += &format!("<h2>Faults</h2>\n<pre>{}</pre>\n", escaped(&happenings.join("\n")));
    page += &format!("<h2>What the seed drew</h2>\n<pre>{}</pre>\n", escaped(&text::drawn(engine, &report.scene)));
    page += &format!("<h2>Checkers</h2>\n<pre>{}</pre>\n</body></html>\n", escaped(&report.checks.to_string()));
    page
}

fn key() -> String {
    let entries = [
        ("leader", "leader"),
        ("follower", "follower"),
        ("learner", "another role"),
        ("fault", "fault"),
        ("claim", "lock held"),
        ("read", "read"),
        ("write", "write"),
        ("unknown", "outcome unknown"),
    ];
    let entry = |(color, name): (&str, &str)| format!("<span><i style=\"background:var(--{color})\"></i>{name}</span>");
    format!("<p class=\"key\">{}</p>\n", entries.map(entry).concat())
}

fn timeline(report: &Report) -> String {
    let mut drawing = Drawing { svg: String::new(), y: 26.0 };
    drawing.servers(report);
    drawing.faults(report);
    drawing.claims(report);
    drawing.clients(report);
    let (height, width) = (drawing.y + 8.0, x(report.time) + 40.0);
    let mut frame = String::new();
    for second in 0..=report.time.as_secs() {
        let at = x(Duration::from_secs(second));
        let _ = write!(frame, "<line x1=\"{at}\" x2=\"{at}\" y1=\"20\" y2=\"{height}\" stroke=\"#eef1f4\"/>");
        let _ = write!(frame, "<text class=\"soft\" x=\"{at}\" y=\"14\">{second} s</text>");
    }
    let calm = x(report.scene.span);
    let _ = write!(
        frame,
        "<rect x=\"{calm}\" y=\"20\" width=\"{}\" height=\"{height}\" fill=\"#f2f8f2\"/><text class=\"soft\" x=\"{}\" y=\"{}\">calm</text>",
        width - calm,
        calm + 4.0,
        height - 4.0
    );
    let mut marks = String::new();
    for (alarm, at) in report.alarms.iter().filter_map(|alarm| Some((alarm, alarm.at?))) {
        let at = x(at);
        let _ = write!(
            marks,
            "<line x1=\"{at}\" x2=\"{at}\" y1=\"18\" y2=\"{height}\" stroke=\"#d1242f\" stroke-width=\"2\"/>\
             <text x=\"{}\" y=\"{}\" style=\"fill:#d1242f\">{}</text>",
            at + 4.0,
            height - 4.0,
            alarm.checker
        );
    }
    format!(
        "<svg width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"timeline\">{frame}{}{marks}</svg>",
        drawing.svg
    )
}

fn x(at: Duration) -> f64 {
    (LEFT + at.as_secs_f64() * SECOND).round()
}

/// The rows, from the top down.
struct Drawing {
    svg: String,
    y: f64,
}

impl Drawing {
    fn name(&mut self, name: &str, height: f64) {
        let _ = write!(self.svg, "<text x=\"6\" y=\"{}\">{}</text>", self.y + height / 2.0 + 4.0, escaped(name));
    }

    fn bar(&mut self, from: Duration, until: Duration, height: f64, color: &str, title: &str) {
        let width = (x(until) - x(from)).max(2.0);
        let _ = write!(
            self.svg,
            "<rect x=\"{}\" y=\"{}\" width=\"{width}\" height=\"{}\" rx=\"2\" fill=\"var(--{color})\" stroke=\"#fff\" stroke-width=\"0.5\"><title>{}</title></rect>",
            x(from),
            self.y + 2.0,
            height - 4.0,
            escaped(title)
        );
    }

    fn label(&mut self, at: Duration, height: f64, words: &str) {
        let _ = write!(
            self.svg,
            "<text x=\"{}\" y=\"{}\">{}</text>",
            x(at) + 4.0,
            self.y + height / 2.0 + 4.0,
            escaped(words)
        );
    }

    /// A row for each server: what it said it was, as long as it said so.
    fn servers(&mut self, report: &Report) {
        let mut views: BTreeMap<&str, Vec<&NodeView>> = BTreeMap::new();
        report.film.views.iter().for_each(|view| views.entry(&view.node).or_default().push(view));
        for (place, said) in views.into_values().enumerate() {
            self.name(&format!("n{}", place + 1), ROW);
            let mut since = 0;
            for at in 0..said.len() {
                let (first, last) = (said[since], said[at]);
                let time = |view: &NodeView| Duration::from_millis(view.time);
                let goes_on = said.get(at + 1).is_some_and(|next| {
                    next.state == last.state && next.term == last.term && time(next) < time(last) + FRESH
                });
                if !goes_on {
                    let color = match last.state.as_str() {
                        "Leader" => "leader",
                        "Follower" => "follower",
                        _ => "learner",
                    };
                    let title = format!("{} of term {}, {} entries", last.state, last.term, last.entries);
                    self.bar(time(first), time(last), ROW, color, &title);
                    since = at + 1;
                }
            }
            self.y += ROW;
        }
        self.y += 8.0;
    }

    /// As few rows as hold all faults side by side.
    fn faults(&mut self, report: &Report) {
        let top = self.y;
        let mut rows: Vec<f64> = Vec::new();
        self.name("faults", ROW);
        for happening in &report.film.happenings {
            let until = happening.until.unwrap_or(happening.at);
            let words = happening.what.chars().take(48).collect::<String>();
            let right = x(until).max(x(happening.at) + 8.0 + 5.6 * words.chars().count() as f64);
            let free = rows.iter().position(|taken| *taken < x(happening.at)).unwrap_or(rows.len());
            if free == rows.len() {
                rows.push(0.0);
            }
            rows[free] = right;
            self.y = top + ROW * free as f64;
            let color = if happening.what.contains(" ended: ") { "end" } else { "fault" };
            self.bar(happening.at, until, ROW, color, &happening.to_string());
            self.label(happening.at, ROW, &words);
        }
        self.y = top + ROW * rows.len().max(1) as f64 + 8.0;
    }

    /// A row for each lock and each who believed to hold it, so that two at once are seen.
    fn claims(&mut self, report: &Report) {
        let mut rows: BTreeMap<(&str, Player), Vec<_>> = BTreeMap::new();
        report.film.claims.iter().for_each(|claim| rows.entry((&claim.lock, claim.client)).or_default().push(claim));
        for ((lock, client), claims) in rows {
            self.name(&format!("{lock} {client}"), THIN);
            for claim in claims {
                self.bar(claim.from, claim.until, THIN, "claim", &claim.to_string());
            }
            self.y += THIN;
        }
        self.y += 8.0;
    }

    /// A row for each client: what it asked, and for how long.
    fn clients(&mut self, report: &Report) {
        let proof: Vec<&Operation> = report.checks.violations().flat_map(|(_, violation)| &violation.proof).collect();
        for player in report.scene.cast() {
            let shots: Vec<_> = report.film.shots.iter().filter(|shot| shot.operation.client == player).collect();
            if shots.is_empty() {
                continue;
            }
            self.name(&player.to_string(), THIN);
            for shot in shots {
                let color = match (&shot.operation.outcome, &shot.operation.call) {
                    (Outcome::Unknown, _) => "unknown",
                    (_, Call::Get) => "read",
                    _ => "write",
                };
                let until = shot.until.unwrap_or(shot.from);
                let Operation { key, call, outcome, .. } = &shot.operation;
                let title = format!("{:.3} s {player}: {call} of {key}: {outcome}", shot.from.as_secs_f64());
                self.bar(shot.from, until, THIN, color, &title);
                if proof.contains(&&shot.operation) {
                    let _ = write!(
                        self.svg,
                        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{THIN}\" fill=\"none\" stroke=\"#d1242f\" stroke-width=\"2\"/>",
                        x(shot.from) - 2.0,
                        self.y,
                        (x(until) - x(shot.from)).max(2.0) + 4.0
                    );
                }
            }
            self.y += THIN;
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Happening;
    use crate::run;
    use crate::scene::{Options, Scene};

    fn report() -> Report {
        let options = Options { nodes: Some(3), ..Options::of_everything() };
        let mut report = run::failed(Scene::draw(7, &options), "read <nothing> & \"more\"".into());
        report.time = Duration::from_secs(3);
        report.alarms[0].at = Some(Duration::from_secs(2));
        report.film.happenings.push(Happening {
            at: Duration::from_secs(1),
            until: Some(Duration::from_millis(1_500)),
            what: "kill n2".into(),
        });
        let view = |time, state: &str, term| NodeView {
            node: "10.0.0.1".into(),
            incarnation: 0,
            time,
            term,
            leader: None,
            state: state.into(),
            applied: 0,
            entries: 0,
            revision: 0,
            digest: String::new(),
        };
        report.film.views =
            vec![view(100, "Follower", 1), view(400, "Leader", 2), view(700, "Leader", 2), view(2_900, "Leader", 2)];
        report
    }

    #[test]
    fn a_page_shows_what_was_found_and_how_to_see_it_again() {
        let page = page("madsim", &report(), "cargo sim --engine madsim --seed 7 --secs 3");
        assert!(page.contains("violation found by engine") && page.contains("at 2.000 s"), "{page}");
        assert!(page.contains("<code>cargo sim --engine madsim --seed 7 --secs 3</code>"), "{page}");
        assert_eq!(page.matches("1.000  kill n2").count(), 2, "drawn, and listed: {page}");
        assert!(page.contains("read &lt;nothing&gt; &amp; &quot;more&quot;") && !page.contains("<nothing>"), "{page}");
    }

    #[test]
    fn a_server_that_says_nothing_for_a_while_has_a_gap_in_its_row() {
        let page = page("turmoil", &report(), "");
        let leads = page.matches("Leader of term 2").count();
        assert_eq!((page.matches("Follower of term 1").count(), leads), (1, 2), "{page}");
    }
}
