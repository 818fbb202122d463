//! Arguments as Go's `flag` package reads them, turned into what clap reads.
//!
//! Consul's users type `-data-dir=D`, `-data-dir D`, `-server=false`, and a value may begin with a dash. The rules of
//! Go: one dash or two; a flag that takes a value takes the next argument, whatever it looks like; `-flag=false` clears
//! a switch; flags end at `--`, at `-` and at the first argument that is none. What this never does: guess. It knows
//! from clap's own description which flags take values.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

/// Rewrites a command line, the program's name first. The command must have been built, so that it knows `help`.
pub fn normalize(root: &Command, args: Vec<OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut done: Vec<OsString> = args.next().into_iter().collect();
    let mut command = root;
    while let Some(arg) = args.next() {
        let text = arg.to_str().unwrap_or_default();
        match flag_name(text) {
            Some(flag) => push_flag(command, text, flag, &mut args, &mut done),
            None => match command.find_subcommand(&arg) {
                Some(found) => {
                    command = found;
                    done.push(arg);
                }
                None => {
                    // The first plain argument, or `--` itself: nothing behind it is a flag. A group of commands has no
                    // arguments, so there it is a command that does not exist, and clap says so best.
                    if arg != "--" && !command.has_subcommands() {
                        done.push("--".into());
                    }
                    done.push(arg);
                    done.extend(args);
                    break;
                }
            },
        }
    }
    done
}

/// What follows the dashes of a flag. `-`, `--` and negative numbers are none.
fn flag_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-'))?;
    name.starts_with(|c: char| c.is_alphabetic()).then_some(name)
}

fn push_flag(
    command: &Command,
    text: &str,
    flag: &str,
    rest: &mut impl Iterator<Item = OsString>,
    done: &mut Vec<OsString>,
) {
    let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
    let Some(arg) = command.get_arguments().find(|arg| is_called(arg, name)) else {
        // Clap knows one-letter flags by one dash, and names the nearest of the others.
        done.push(if flag.len() == 1 { text.into() } else { format!("--{flag}").into() });
        return;
    };
    let switch = matches!(arg.get_action(), ArgAction::SetTrue);
    match (switch, value.and_then(go_bool)) {
        (true, Some(true)) => done.push(format!("--{name}").into()),
        (true, Some(false)) => {}
        _ => {
            let mut whole = OsString::from(format!("--{flag}"));
            let takes_next = value.is_none() && arg.get_num_args().is_some_and(|n| n.min_values() > 0);
            if let Some(next) = takes_next.then(|| rest.next()).flatten() {
                whole.push("=");
                whole.push(next);
            }
            done.push(whole);
        }
    }
}

fn is_called(arg: &Arg, name: &str) -> bool {
    arg.get_long() == Some(name) || arg.get_all_aliases().unwrap_or_default().contains(&name)
}

/// The spellings of a truth value in Go.
pub fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let run = Command::new("run")
            .arg(Arg::new("data-dir").long("data-dir").alias("dir"))
            .arg(Arg::new("n").long("n"))
            .arg(Arg::new("dev").long("dev").action(ArgAction::SetTrue))
            .arg(Arg::new("server").long("server").num_args(0..=1).require_equals(true))
            .arg(Arg::new("words").num_args(0..));
        let mut root = Command::new("q").subcommand(Command::new("kv").subcommand(run.clone())).subcommand(run);
        root.build();
        root
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        for (typed, meant) in [
            ("run -data-dir=D", "run --data-dir=D"),
            ("run -data-dir D -dev", "run --data-dir=D --dev"),
            ("run --data-dir D", "run --data-dir=D"),
            ("run -dir D", "run --dir=D"),
            ("run -data-dir -dev", "run --data-dir=-dev"),
            ("run -data-dir= x", "run --data-dir= -- x"),
            ("run -data-dir", "run --data-dir"),
            ("run -n 3 x", "run --n=3 -- x"),
            ("run -n=-3", "run --n=-3"),
            ("run -dev=true x", "run --dev -- x"),
            ("run -dev=false x", "run -- x"),
            ("run -dev=maybe", "run --dev=maybe"),
            ("run -server=false", "run --server=false"),
            ("run -server x", "run --server -- x"),
            ("run x -dev", "run -- x -dev"),
            ("run -5", "run -- -5"),
            ("run -", "run -- -"),
            ("run -- -dev", "run -- -dev"),
            ("run -h", "run -h"),
            ("run -help", "run --help"),
            ("run -nonsense=1", "run --nonsense=1"),
            ("kv run -dev kv", "kv run --dev -- kv"),
            ("kv nonsense -x", "kv nonsense -x"),
            ("-help", "--help"),
        ] {
            let args = std::iter::once("q").chain(typed.split(' ')).map(OsString::from).collect();
            let done: Vec<String> = normalize(&command(), args).into_iter().map(|a| a.into_string().unwrap()).collect();
            assert_eq!(done[1..].join(" "), meant, "{typed}");
        }
    }
}
